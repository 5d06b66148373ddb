//! What was typed, kept in a file without what it says of passwords and secrets.

use millstream_sql::statement::cut_secrets;
use reedline::{FileBackedHistory, History, HistoryItem, HistoryItemId, HistorySessionId, Result, SearchQuery};

/// A history that forgets secrets.
pub(super) struct CutHistory(pub(super) FileBackedHistory);

fn cut(item: HistoryItem) -> HistoryItem {
    HistoryItem { command_line: cut_secrets(&item.command_line).into_owned(), ..item }
}

impl History for CutHistory {
    fn save(&mut self, item: HistoryItem) -> Result<HistoryItem> {
        self.0.save(cut(item))
    }

    fn load(&self, id: HistoryItemId) -> Result<HistoryItem> {
        self.0.load(id)
    }

    fn count(&self, query: SearchQuery) -> Result<i64> {
        self.0.count(query)
    }

    fn search(&self, query: SearchQuery) -> Result<Vec<HistoryItem>> {
        self.0.search(query)
    }

    fn update(&mut self, id: HistoryItemId, updater: &dyn Fn(HistoryItem) -> HistoryItem) -> Result<()> {
        self.0.update(id, &|item| cut(updater(item)))
    }

    fn clear(&mut self) -> Result<()> {
        self.0.clear()
    }

    fn delete(&mut self, id: HistoryItemId) -> Result<()> {
        self.0.delete(id)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.0.sync()
    }

    fn session(&self) -> Option<HistorySessionId> {
        self.0.session()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_reach_the_file() {
        let file = std::env::temp_dir().join(format!("millstream-history-{}", std::process::id()));
        let mut history = CutHistory(FileBackedHistory::with_file(10, file.clone()).unwrap());
        for line in ["SELECT 1;", "CREATE USER ann\nPASSWORD 'hunter2hunter2';", "CREATE SECRET k AS 'hunter2hunter2"] {
            history.save(HistoryItem::from_command_line(line)).unwrap();
        }
        history.sync().unwrap();
        let kept = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(kept.contains("SELECT 1;") && kept.contains("CREATE USER ann") && !kept.contains("hunter2"), "{kept}");
    }
}
