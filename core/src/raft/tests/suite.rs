//! openraft's own storage test suite, on our stores.

use openraft::{
    StorageError,
    errors::ErrorSource,
    testing::log::{StoreBuilder, Suite},
};

use super::{
    Stores,
    platform::{TestDisk, TestRuntime},
};
use crate::raft::{log::LogStore, state::StateMachine, types::Types};

struct Builder;

impl StoreBuilder<Types<TestRuntime>, LogStore<TestRuntime>, StateMachine<TestRuntime>, TestDisk>
    for Builder
{
    async fn build(
        &self,
    ) -> Result<(TestDisk, LogStore<TestRuntime>, StateMachine<TestRuntime>), StorageError<Types<TestRuntime>>>
    {
        let disk = TestDisk::default();
        let stores = Stores::open(disk.clone())
            .await
            .map_err(|error| StorageError::read(ErrorSource::from_error(&error)))?;
        Ok((disk, stores.log, stores.state))
    }
}

#[tokio::test(start_paused = true)]
async fn stores_pass_openrafts_suite() {
    Suite::test_all(Builder).await.unwrap();
}
