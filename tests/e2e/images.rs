//! Images in the nodes of our own cluster.

use std::time::Duration;

use anyhow::Result;

use crate::{
    command::Run,
    ground::{Ground, repository},
};

/// Another image of the driver has it.
pub const SECOND_TAG: &str = "e2e-second";

// === impl Ground ===

impl Ground {
    /// Image archives into every node.
    pub fn load(&self, archives: &[String]) -> Result<()> {
        let args = ["load"].into_iter().chain(archives.iter().map(String::as_str));
        self.cluster.script(args).text().map(drop)
    }

    /// Another image of the driver, loaded: its tag. Its program is the same, its digest is not.
    pub fn second_image(&self) -> Result<&'static str> {
        let archive = self.out.join("second.tar").display().to_string();
        let script = repository().join("hack/image").display().to_string();
        Run::new(&script, ["--tag", SECOND_TAG, "--out", &archive])
            .limit(Duration::from_mins(15))
            .text()?;
        self.load(&[archive])?;
        Ok(SECOND_TAG)
    }
}
