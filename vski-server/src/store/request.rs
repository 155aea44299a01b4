//! A request to the writer: what to run, and where the answer goes.
//!
//! `run` may be called more than once: a transaction that failed as a whole is repeated for each of its requests
//! alone. Only the last run counts.

use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use vski_replication::changelog::Head;
use vski_replication::trace::Trace;

use super::error::StoreError;
use super::migrate;
use super::migration::{Done, Plan};
use super::transaction::WriteConnection;
use crate::trace;

/// How a request is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Changes rows; shares a transaction and its entry with others.
    Rows,
    /// May change the schema: a transaction and an entry of its own.
    Schema,
    /// Changes our own bookkeeping only: a transaction of its own, and no entry.
    Upkeep,
    /// A manual migration: a transaction and an entry of its own.
    Migration,
}

/// What the writer thread needs to know of a request.
pub trait Request: Send {
    /// How much it holds in memory, bytes: bounds a queue and a batch.
    fn bytes(&self) -> usize;

    /// How it is run.
    fn form(&self) -> Form;

    /// The trace that it belongs to.
    fn trace(&self) -> Option<Trace>;

    /// Where its answer is waited for, if it is one of those that are answered together.
    fn runtime(&self) -> Option<&Handle> {
        None
    }

    /// DDL to run before the rows; empty for most.
    fn statements(&mut self, conn: &Connection) -> Result<Vec<String>, StoreError>;

    /// Changes rows and keeps the result.
    fn run(&mut self, conn: &Connection) -> Result<(), StoreError>;

    /// Runs a manual migration, which takes the whole transaction into its hands.
    fn migrate(&mut self, _writer: &mut WriteConnection) -> Result<(), StoreError> {
        Err(StoreError::Invalid("this request is no migration".to_owned()))
    }

    /// Answers: what `run` kept, now that it is committed and the log ends at the head given, or why not.
    fn answer(self: Box<Self>, outcome: Result<Head, StoreError>);
}

/// What a committed request returned, and where it stands.
#[derive(Debug)]
pub struct Written<T> {
    /// What the request's closure returned.
    pub value: T,
    /// The log's end after the commit: at or after the entry that holds the change.
    pub head: Head,
}

/// The end of a request that waits for the answer.
pub type Answer<T> = oneshot::Receiver<Result<Written<T>, StoreError>>;

/// Rows changed by a closure.
pub struct Rows<F, T> {
    work: F,
    bytes: usize,
    form: Form,
    trace: Option<Trace>,
    runtime: Option<Handle>,
    result: Option<T>,
    reply: oneshot::Sender<Result<Written<T>, StoreError>>,
}

impl<F, T> Rows<F, T>
where
    F: FnMut(&Connection) -> Result<T, StoreError> + Send,
    T: Send,
{
    /// A request that holds `bytes` of the caller's data, in the trace of this task's HTTP request.
    pub fn new(bytes: usize, work: F) -> (Self, Answer<T>) {
        let (reply, answer) = oneshot::channel();
        let (trace, runtime) = (trace::current(), Handle::try_current().ok());
        (Self { work, bytes, form: Form::Rows, trace, runtime, result: None, reply }, answer)
    }

    /// A request that changes our own bookkeeping, which no entry describes.
    pub fn upkeep(work: F) -> (Self, Answer<T>) {
        let (request, answer) = Self::new(0, work);
        (Self { form: Form::Upkeep, ..request }, answer)
    }
}

impl<F, T> Request for Rows<F, T>
where
    F: FnMut(&Connection) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn form(&self) -> Form {
        self.form
    }

    fn trace(&self) -> Option<Trace> {
        self.trace
    }

    fn runtime(&self) -> Option<&Handle> {
        self.runtime.as_ref()
    }

    fn statements(&mut self, _conn: &Connection) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    fn run(&mut self, conn: &Connection) -> Result<(), StoreError> {
        self.result = None;
        self.result = Some((self.work)(conn)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<Head, StoreError>) {
        let Self { result, reply, .. } = *self;
        let outcome = outcome.map(|head| Written { value: result.expect("a committed request has run"), head });
        // A caller that went away does not undo its write.
        let _ = reply.send(outcome);
    }
}

/// A schema change: DDL found by `plan`, then catalogue rows.
pub struct Schema<P, F, T> {
    plan: P,
    rows: Rows<F, T>,
}

impl<P, F, T> Schema<P, F, T>
where
    P: FnMut(&Connection) -> Result<Vec<String>, StoreError> + Send,
    F: FnMut(&Connection) -> Result<T, StoreError> + Send,
    T: Send,
{
    /// `plan` sees the schema as it is when its turn comes, and may refuse.
    pub fn new(plan: P, rows: F) -> (Self, Answer<T>) {
        let (rows, answer) = Rows::new(0, rows);
        (Self { plan, rows }, answer)
    }
}

impl<P, F, T> Request for Schema<P, F, T>
where
    P: FnMut(&Connection) -> Result<Vec<String>, StoreError> + Send,
    F: FnMut(&Connection) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn bytes(&self) -> usize {
        self.rows.bytes
    }

    fn form(&self) -> Form {
        Form::Schema
    }

    fn trace(&self) -> Option<Trace> {
        self.rows.trace
    }

    fn statements(&mut self, conn: &Connection) -> Result<Vec<String>, StoreError> {
        (self.plan)(conn)
    }

    fn run(&mut self, conn: &Connection) -> Result<(), StoreError> {
        self.rows.run(conn)
    }

    fn answer(self: Box<Self>, outcome: Result<Head, StoreError>) {
        Box::new(self.rows).answer(outcome);
    }
}

/// A manual migration.
pub struct Migration {
    plan: Plan,
    bytes: usize,
    trace: Option<Trace>,
    result: Option<Done>,
    reply: oneshot::Sender<Result<Written<Done>, StoreError>>,
}

impl Migration {
    /// A request to run `plan`, which holds `bytes` of SQL.
    pub fn new(bytes: usize, plan: Plan) -> (Self, Answer<Done>) {
        let (reply, answer) = oneshot::channel();
        (Self { plan, bytes, trace: trace::current(), result: None, reply }, answer)
    }
}

impl Request for Migration {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn form(&self) -> Form {
        Form::Migration
    }

    fn trace(&self) -> Option<Trace> {
        self.trace
    }

    fn statements(&mut self, _conn: &Connection) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    fn run(&mut self, _conn: &Connection) -> Result<(), StoreError> {
        Err(StoreError::Invalid("a migration takes a whole transaction".to_owned()))
    }

    fn migrate(&mut self, writer: &mut WriteConnection) -> Result<(), StoreError> {
        self.result = Some(migrate::run(writer, &self.plan, self.trace)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<Head, StoreError>) {
        let Self { result, reply, .. } = *self;
        let written = |head| Written { value: result.expect("a committed migration has run"), head };
        // A caller that went away does not undo its migration.
        let _ = reply.send(outcome.map(written));
    }
}
