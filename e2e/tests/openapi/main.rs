//! The OpenAPI document, against the servers that it describes: what it lists is there, and whatever is sent there is
//! answered as it says, by a master to an admin and to a guest, and by a replica.
//!
//! schemathesis makes the requests; e2e/tools/schemathesis installs it.

/// A master with collections of every kind, and a replica.
mod world;

/// The document by itself.
mod document;

/// Requests made from the document.
mod requests;

use std::process::ExitCode;

use e2e::docker;
use e2e::scenarios::{self, Scenario};

use self::world::World;

type Proof = fn(&World) -> anyhow::Result<()>;

const fn scenario(name: &'static str, run: Proof) -> Scenario<Proof> {
    Scenario { name, needs_docker: false, run }
}

const SCENARIOS: &[Scenario<Proof>] = &[
    scenario("both_roles_serve_their_document_and_a_page_that_needs_no_other_host", document::served),
    scenario("every_operation_of_a_document_has_a_route", document::routes),
    scenario(
        "a_replica_refuses_every_write_of_the_masters_document_with_the_same_words",
        document::writes_on_a_replica,
    ),
    scenario("a_replica_answers_as_its_document_says", requests::to_a_replica),
    scenario("a_master_answers_a_guest_as_its_document_says", requests::as_guest),
    scenario("a_master_answers_a_replica_as_its_document_says", requests::as_replica),
    scenario("a_master_answers_an_admin_as_its_document_says", requests::as_admin),
];

fn main() -> ExitCode {
    let prepare = |_has_docker| {
        docker::script("e2e/tools/schemathesis", &[])?;
        World::start()
    };
    scenarios::main(SCENARIOS, Ok(()), prepare, |run, world| run(world))
}
