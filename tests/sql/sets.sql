# union
SELECT id, k FROM bids UNION SELECT id, k FROM clicks

# intersect
SELECT k, name FROM bids INTERSECT SELECT k, name FROM clicks

# intersect over rows that are taken back, with floats
SELECT k, f FROM accounts INTERSECT SELECT k, f FROM loose

# except
SELECT k, name FROM bids EXCEPT SELECT k, name FROM loose

# except of rows that are taken back
SELECT name, price FROM accounts EXCEPT SELECT name, price FROM loose

# except of what is computed
SELECT id FROM bids EXCEPT SELECT id * 2 FROM clicks

# a set of a set
SELECT k FROM bids EXCEPT (SELECT k FROM clicks INTERSECT SELECT k FROM accounts)

# aggregates of a set
SELECT k, count(*) AS n FROM (SELECT id, k FROM accounts INTERSECT SELECT id, k FROM bids) GROUP BY k

# with lists and structs
SELECT s, l FROM bids INTERSECT SELECT s, l FROM bids WHERE id > 3

# no columns in common but null
SELECT NULL::INT AS k FROM bids INTERSECT SELECT k FROM clicks

# distinct of a join
SELECT DISTINCT a.k, l.name FROM accounts a JOIN loose l ON a.k = l.k

# columns of a struct
SELECT id, unnest(s) FROM accounts

# except, counted
SELECT k, name FROM bids EXCEPT ALL SELECT k, name FROM clicks

# except of rows that are taken back, counted
SELECT k, price FROM loose EXCEPT ALL SELECT k, price FROM accounts

# intersect, counted, with floats
SELECT k, f FROM loose INTERSECT ALL SELECT k, f FROM accounts

# a counted set of a set
SELECT k FROM bids INTERSECT ALL (SELECT k FROM clicks EXCEPT ALL SELECT k FROM loose)

# the first of each kind
SELECT DISTINCT ON (k) k, id, name FROM bids ORDER BY k, id

# the last of each kind, over rows that are taken back
SELECT DISTINCT ON (k, name) k, name, id, price FROM accounts ORDER BY k, name, id DESC

# the first of each kind by what is given
SELECT DISTINCT ON (k) k, name, id FROM bids

# the same over rows that are taken back, by what is computed
SELECT DISTINCT ON (k + 1, name) price, id FROM accounts

# the first of all, over groups
SELECT DISTINCT ON (n) n, k FROM (SELECT k, count(*) AS n FROM loose GROUP BY k)
