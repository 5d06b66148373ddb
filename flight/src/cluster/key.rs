//! The key of a cluster: what its nodes know and clients do not. It lies in the store, so whoever may open that is a node, and there
//! is nothing to be set up.
//!
//! Nobody is sent it. Who calls a node sends what the key makes of that node's name: of use with no other process.

use bytes::Bytes;
use millstream_engine::store::Store;
use millstream_engine::token::token;
use millstream_sql::{Error, ErrorKind, Result};
use ring::hmac;
use tonic::metadata::{Ascii, MetadataValue};

/// The header with the proof that a node sends this.
pub(super) const NODE: &str = "x-millstream-node";

const PATH: &str = "cluster/key";
/// The least that it has of characters.
const SHORTEST: usize = 32;

/// See the module's text.
pub(crate) struct ClusterKey(hmac::Key);

impl ClusterKey {
    /// That of the nodes of `store`. The first one makes it.
    pub(crate) async fn of(store: &Store) -> Result<Self> {
        let text = match store.get(PATH).await {
            Err(e) if e.kind() == millstream_engine::ErrorKind::NotFound => {
                let new = Bytes::from(format!("{}{}", token()?, token()?));
                match store.create_private(PATH, new.clone()).await {
                    Err(e) if e.kind() == millstream_engine::ErrorKind::Exists => store.get(PATH).await?,
                    created => created.map(|()| new)?,
                }
            }
            found => found?,
        };
        if text.len() < SHORTEST {
            let place = store.locate(PATH);
            return Err(Error::new(ErrorKind::Data, format!("\"{place}\" holds no key of a cluster"))
                .with_hint("End all nodes and remove it: the first one that starts makes another."));
        }
        Ok(ClusterKey(hmac::Key::new(hmac::HMAC_SHA256, &text)))
    }

    /// What proves to the process called `name` that its caller has the key.
    pub(crate) fn proof(&self, name: &str) -> String {
        hexadecimal(hmac::sign(&self.0, name.as_bytes()).as_ref())
    }

    /// The same as a header.
    pub(super) fn header(&self, name: &str) -> Result<MetadataValue<Ascii>> {
        let proof = self.proof(name).parse();
        let mut proof: MetadataValue<Ascii> =
            proof.map_err(|_| Error::internal("a proof does not fit into a header"))?;
        proof.set_sensitive(true);
        Ok(proof)
    }

    /// Whether `proof` proves it to the process called `name`.
    pub(crate) fn is_proven(&self, proof: &[u8], name: &str) -> bool {
        let bytes: Option<Vec<u8>> = proof.chunks(2).map(byte).collect();
        bytes.is_some_and(|bytes| hmac::verify(&self.0, name.as_bytes(), &bytes).is_ok())
    }
}

/// `bytes` in hexadecimal.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn byte(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_nodes_of_a_store_have_one_key_that_proves_itself_to_one_process() {
        let (here, there) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let key = async |folder: &tempfile::TempDir| {
            ClusterKey::of(&Store::open(folder.path()).expect("opens")).await.expect("a key")
        };
        let (one, two, other) = (key(&here).await, key(&here).await, key(&there).await);
        let proof = one.proof("a process");
        assert_eq!(proof, two.proof("a process"));
        assert!(two.is_proven(proof.as_bytes(), "a process") && !two.is_proven(proof.as_bytes(), "another"));
        assert!(!other.is_proven(proof.as_bytes(), "a process"));
        for wrong in ["", "0", "zz", &proof[2..]] {
            assert!(!one.is_proven(wrong.as_bytes(), "a process"), "{wrong}");
        }
        std::fs::write(here.path().join(PATH), "short").expect("writes");
        let store = Store::open(here.path()).expect("opens");
        assert_eq!(ClusterKey::of(&store).await.err().map(|e| e.kind()), Some(ErrorKind::Data));
    }
}
