use std::time::Instant;

use indicatif::ProgressBar;
use serde_json::json;
use vski_replication::names;

use crate::cli::Failure;
use crate::cli::target::{Api, ChunkError, Line, Target};
use crate::store::collections::Wanted;
use crate::store::import;

/// GeoNames, CC BY 4.0: see examples/data/README.md.
const FILES: [(&str, &str); 2] = [
    ("countries", include_str!("../../../../examples/data/countries.ndjson")),
    ("cities", include_str!("../../../../examples/data/cities.ndjson")),
];

/// Records that are stored together.
const CHUNK_LINES: usize = 500;

/// Makes the collections and fills them, unless an earlier demo has.
pub async fn fill(api: Api) -> Result<(), Failure> {
    let target = Target::Api(api);
    for (name, text) in FILES {
        let lines: Vec<Line> = text.lines().map(import::parse_line).collect::<Result<_, _>>().map_err(Failure::work)?;
        fill_collection(&target, name, lines).await?;
    }
    let mut post = Line::new();
    post.insert("title".into(), json!("Hello World"));
    post.insert("content".into(), json!("Written on the master, read on every replica."));
    fill_collection(&target, "posts", vec![post]).await
}

async fn fill_collection(target: &Target, name: &str, lines: Vec<Line>) -> Result<(), Failure> {
    if target.collection(names::DEFAULT_DATABASE, name).await?.is_some() {
        println!("{name}: there already");
        return Ok(());
    }
    let wanted =
        Wanted { name: Some(name.to_owned()), fields: Some(import::infer_fields(lines.iter())), ..Wanted::default() }
            .with_rules([Some(""), Some("")]);
    target.create_collection(names::DEFAULT_DATABASE, wanted).await?;
    let (total, started, bar) = (lines.len(), Instant::now(), ProgressBar::new(lines.len() as u64));
    for chunk in lines.chunks(CHUNK_LINES) {
        let stored = target.insert(names::DEFAULT_DATABASE, name, chunk.to_vec()).await;
        stored.map_err(|error| match error {
            ChunkError::Line { line, message, .. } => Failure::work(format!("{name} line {line}: {message}")),
            ChunkError::Chunk(message) | ChunkError::Unknown(message) => Failure::work(format!("{name}: {message}")),
        })?;
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    println!("{name}: {total} records imported in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}
