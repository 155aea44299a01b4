//! Black-box scenarios: the real programs as processes on loopback, no containers.
//!
//! `./test` builds the programs first. `./test kills` runs the scenarios whose names contain that word.

/// The specification's quick start, as it is printed.
mod quick_start;

/// A master with both kinds of replica.
mod trio;

/// Replicas follow their master while it is written to and its schema changes.
mod follow;

/// Random kills of every process under load.
mod kills;

/// A master dies in the middle of a schema change.
mod collection_crash;

/// An agent dies, or fails, at every place where it can.
mod agent_crash;
mod ahead;

/// The same of a master.
mod master_crash;

/// A file that is no database does not take the others down.
mod unusable;

/// The log lines that operators look for.
mod log_lines;

/// What an agent does about a master that is not where it was left.
mod section5;

/// Copies that no longer follow from their log are made equal in place.
mod converge;

/// Copies compared with their master.
mod verify;

/// Random rounds of kills, freezes, restores and edits.
mod rounds;

/// A large first copy, interrupted.
mod big;

/// A replica becomes the master, and the old master a replica.
mod promote;

/// A replica takes its living master's place under load.
mod handover;

/// A replica follows a replica.
mod cascade;

/// Starts that are refused, with one line that says what to do.
mod startup;

/// Who may log in, how often, and what that opens.
mod auth;

/// A whole cluster with data, by one command.
mod demo;

/// Many records from a file.
mod import;

/// The REST API as clients see it.
mod rest;

/// Uploaded files, on all nodes.
mod files;

/// Databases are deleted and restored.
mod databases;

/// Many changes in one request.
mod batch;

/// What one request may ask for.
mod limits;
/// Lists, filters, expansion and rules.
mod query;

/// Clients that were made for PocketBase.
mod clients;

/// What browsers and caches are told.
mod browsers;
/// Collections of every kind, fields of every type.
mod schema;

/// Manual migrations, and edits behind the master's back.
mod migration;

/// An administrator's sqlite3 on the master's file.
mod foreign_edits;

/// A first copy that takes longer than the master can wait.
mod lease;

/// Readers see whole states only, and a master without its volume harms nobody.
mod whole_states;

/// Logs are pruned, and replicas that were away too long are told.
mod retention;

/// What a master tells of its replicas.
mod replicas;

/// docs/OPERATIONS.md lists the metrics that there are.
mod metrics;

/// How far a replica is behind, and who is told.
mod lag;

/// A client reads what it has written, from whichever node.
mod read_your_writes;

/// A new secret comes to a running cluster.
mod rotation;

/// A master behind TLS.
mod https;

/// What a node's doctor finds.
mod doctor;

/// A receiver of spans.
mod collector;

/// One trace from a request to where it is applied.
mod trace;

/// Whether a container's process lives, by one command.
mod healthcheck;

/// Memory that does not grow with the database.
mod bounds;

/// How a master without an admin gets one.
mod first_admin;

/// Tables that cannot be replicated, made by another program.
mod unreplicable;

/// Costly reads hold up neither replication nor logins.
mod slow_reads;
