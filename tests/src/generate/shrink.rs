//! Makes a query that fails smaller: takes away what it does not need to fail.

use super::{Body, From, Select};

/// Queries that lack one thing that `body` has. Some have no meaning, since what they lack is used.
pub fn smaller(body: &Body) -> Vec<Body> {
    let mut all = vec![];
    if body.parts.len() > 1 {
        for i in 0..body.parts.len() {
            let mut less = body.clone();
            less.parts.remove(i);
            all.push(less);
        }
    }
    for (i, part) in body.parts.iter().enumerate() {
        for select in selects(part, body.parts.len() == 1) {
            let mut less = body.clone();
            less.parts[i] = select;
            all.push(less);
        }
    }
    all
}

fn selects(select: &Select, alone: bool) -> Vec<Select> {
    let mut all = vec![];
    let mut push = |change: &dyn Fn(&mut Select)| {
        let mut less = select.clone();
        change(&mut less);
        all.push(less);
    };
    if let From::Body(body) = &select.from {
        for inner in smaller(body) {
            push(&|s| s.from = From::Body(Box::new(inner.clone())));
        }
    }
    if let From::Join { join, left, right, names, on } = &select.from {
        let with = |left: &Body, right: &Body, on: &[String]| From::Join {
            join,
            left: Box::new(left.clone()),
            right: Box::new(right.clone()),
            names: names.clone(),
            on: on.to_vec(),
        };
        smaller(left).iter().for_each(|less| push(&|s| s.from = with(less, right, on)));
        smaller(right).iter().for_each(|less| push(&|s| s.from = with(left, less, on)));
        for i in 0..on.len() {
            let rest: Vec<String> = [&on[..i], &on[i + 1..]].concat();
            if !rest.is_empty() {
                push(&|s| s.from = with(left, right, &rest));
            }
        }
    }
    if alone && select.items.len() > 1 {
        for i in (0..select.items.len()).rev() {
            push(&|s| {
                s.items.remove(i);
            });
        }
    }
    for i in 0..select.filters.len() {
        push(&|s| {
            s.filters.remove(i);
        });
    }
    if select.limit.is_some() {
        push(&|s| s.limit = None);
    }
    if select.having.is_some() {
        push(&|s| s.having = None);
    }
    for (i, item) in select.items.iter().enumerate() {
        if let Some((call, _)) = item.sql.split_once(" FILTER (") {
            push(&|s| s.items[i].sql = call.to_owned());
        }
    }
    all
}
