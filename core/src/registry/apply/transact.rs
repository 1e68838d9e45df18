//! Carries out a transaction: every operation or, if one can't be done, none.

use super::{catalog_operations, key_operations, sessions};
use crate::registry::{
    Operation, OperationError, OperationRefusal, OperationResult, Refusal, Reply, tables::Tables,
    transaction::Transaction,
};

/// Carries out the operations in order, each on top of those before it. All that fail are named.
pub(super) fn transact(
    transaction: &mut Transaction<'_>,
    operations: &[Operation],
) -> Result<Reply, Refusal> {
    let each = |operation| match read(transaction.tables(), operation) {
        Some(outcome) => outcome,
        None => write(transaction, operation),
    };
    all_or_none(operations, each)
        .map(Reply::Transacted)
        .map_err(Refusal::Aborted)
}

/// Answers a transaction of operations that only read.
pub(in crate::registry) fn evaluate(
    tables: &Tables,
    operations: &[Operation],
) -> Result<Vec<OperationResult>, Vec<OperationError>> {
    all_or_none(operations, |operation| {
        read(tables, operation).unwrap_or_else(|| Err(OperationRefusal::Invalid("it writes".into())))
    })
}

fn all_or_none<'a>(
    operations: &'a [Operation],
    mut each: impl FnMut(&'a Operation) -> Result<Vec<OperationResult>, OperationRefusal>,
) -> Result<Vec<OperationResult>, Vec<OperationError>> {
    let mut results = Vec::with_capacity(operations.len());
    let mut errors = Vec::new();
    for (place, operation) in operations.iter().enumerate() {
        match each(operation) {
            Ok(given) => results.extend(given),
            Err(refusal) => errors.push(OperationError {
                place: place as u64,
                refusal,
            }),
        }
    }
    if errors.is_empty() {
        Ok(results)
    } else {
        Err(errors)
    }
}

/// What an operation that only reads gives; `None` for one that writes.
fn read(tables: &Tables, operation: &Operation) -> Option<Result<Vec<OperationResult>, OperationRefusal>> {
    key_operations::read(tables, operation).or_else(|| catalog_operations::read(tables, operation))
}

fn write(
    transaction: &mut Transaction<'_>,
    operation: &Operation,
) -> Result<Vec<OperationResult>, OperationRefusal> {
    if let Operation::DestroySession(id) = operation {
        sessions::destroy(transaction, id);
        return Ok(Vec::new());
    }
    let result = match key_operations::write(transaction, operation) {
        Some(outcome) => outcome?,
        None => catalog_operations::write(transaction, operation)?,
    };
    Ok(result.into_iter().collect())
}
