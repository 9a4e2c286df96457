//! PUT to every cloud, and what goes wrong there.

use std::sync::Mutex;

use bridge_core::ErrorKind;
use bridge_core::snowflake::LocalFile;
use reqwest::Method;
use serde_json::{Value, json};

use crate::case::{Case, case};
use crate::world::{World, file, run};

const NAME: &str = "part-00000.parquet";
/// Above the size from which files travel in parts.
const LARGE: usize = 20 << 20;

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "put_to_amazon",
            &["put.amazon", "put.statement", "put.encryption-128"],
            |world| put(world, "s3", 128),
        ),
        case("put_to_amazon_256", &["put.encryption-256"], |world| {
            put(world, "s3", 256)
        }),
        case("put_to_amazon_in_parts", &["put.amazon-parts"], |world| {
            put_large(world, "s3")
        }),
        case(
            "put_to_azure",
            &["put.azure", "put.encryption-128"],
            |world| put(world, "azure", 128),
        ),
        case(
            "put_to_azure_256",
            &["put.azure", "put.encryption-256"],
            |world| put(world, "azure", 256),
        ),
        case("put_to_azure_in_parts", &["put.azure-parts"], |world| {
            put_large(world, "azure")
        }),
        case(
            "put_to_google",
            &["put.google-token", "put.encryption-128"],
            |world| put(world, "gcs", 128),
        ),
        case("put_to_google_256", &["put.encryption-256"], |world| {
            put(world, "gcs", 256)
        }),
        case("put_to_google_large", &["put.google-token"], |world| {
            put_large(world, "gcs")
        }),
        case(
            "put_to_a_presigned_address",
            &["put.google-presigned"],
            |world| put(world, "gcs_presigned", 128),
        ),
        case(
            "put_to_a_presigned_address_large",
            &["put.google-presigned"],
            |world| put_large(world, "gcs_presigned"),
        ),
        case(
            "put_of_several_files_by_one_statement",
            &[
                "put.statement",
                "put.amazon",
                "put.azure",
                "put.google-token",
                "put.google-presigned",
            ],
            put_together,
        ),
        case(
            "put_to_a_stage_without_keys",
            &["put.unencrypted"],
            unencrypted,
        ),
        case("put_renews_credentials", &["put.renewal"], renewal).alone(),
        case(
            "put_renews_credentials_in_the_middle_of_parts",
            &["put.renewal"],
            renewal_in_parts,
        )
        .alone(),
        case(
            "put_of_several_files_renews_credentials_for_those_that_wait",
            &["put.renewal"],
            renewal_among_several,
        )
        .alone(),
        case("put_is_tried_again", &["put.retries"], retries).alone(),
        case("put_refuses_other_storage", &["put.refused"], refused).alone(),
    ]
}

async fn on(world: &World, cloud: &str, bits: u16) {
    world
        .set_account(json!({"cloud": cloud, "client_encryption_key_size": bits}))
        .await;
}

async fn put(world: World, cloud: &'static str, bits: u16) {
    on(&world, cloud, bits).await;
    let mut session = world.login().await;
    // Nothing, one byte, a whole number of blocks, and a few megabytes.
    for (n, size) in [0, 1, 16, 3 << 20].into_iter().enumerate() {
        let (_directory, path, content) = file(size);
        session
            .put(&path, &format!("~/a/{n}/"), NAME, &|_| {})
            .await
            .unwrap();
        assert_staged(&world, &format!("@~/a/{n}/"), &content).await;
    }
    // Put again under the same name, the file is the new one.
    let (_directory, path, content) = file(1000);
    session.put(&path, "~/a/0/", NAME, &|_| {}).await.unwrap();
    assert_staged(&world, "@~/a/0/", &content).await;
    let puts = world.statements("put").await;
    assert_eq!(puts.len(), 5);
    for put in &puts {
        let sql = put["sql"].as_str().unwrap();
        assert!(
            sql.contains("OVERWRITE=TRUE") && sql.contains("AUTO_COMPRESS=FALSE"),
            "{sql}"
        );
    }
}

async fn put_large(world: World, cloud: &'static str) {
    on(&world, cloud, 128).await;
    let mut session = world.login().await;
    let (_directory, path, content) = file(LARGE + 7);
    let told = Mutex::new(Vec::new());
    session
        .put(&path, "~/large/", NAME, &|bytes| {
            told.lock().unwrap().push(bytes)
        })
        .await
        .unwrap();
    assert_staged(&world, "@~/large/", &content).await;
    let told = told.into_inner().unwrap();
    assert!(told.is_sorted(), "{told:?}");
    assert_eq!(told.last(), Some(&(content.len() as u64)));
}

/// The stand-in decrypts what lies in the stage with the official connector's own code.
async fn assert_staged(world: &World, location: &str, content: &[u8]) {
    let files = world.staged(location).await;
    let [file] = files.as_slice() else {
        panic!("{location}: {files:#?}")
    };
    let expected = json!({"size": content.len(), "sha256": sha256(content)});
    assert_eq!(file["content"], expected, "{file}");
}

fn sha256(content: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

async fn unencrypted(world: World) {
    for cloud in ["s3", "azure", "gcs"] {
        on(&world, cloud, 128).await;
        let mut session = world.login().await;
        let encryption = "encryption = (type = 'SNOWFLAKE_SSE')";
        run(
            &mut session,
            format!("create stage plain_{cloud} {encryption}"),
        )
        .await;
        let (_directory, path, content) = file(1000);
        let stage = format!("ANALYTICS_DB.REPORTS.PLAIN_{}/a/", cloud.to_uppercase());
        session.put(&path, &stage, NAME, &|_| {}).await.unwrap();
        assert_staged(&world, &format!("@{stage}"), &content).await;
        let files = world.staged(&format!("@{stage}")).await;
        assert_eq!(
            files[0]["size"],
            content.len(),
            "as large as it was: {files:?}"
        );
    }
}

async fn renewal(world: World) {
    for (cloud, expired) in [
        (
            "s3",
            json!({"status": 400, "body": "<Error><Code>ExpiredToken</Code></Error>"}),
        ),
        (
            "azure",
            json!({"status": 403, "body": "<Error><Code>AuthenticationFailed</Code></Error>"}),
        ),
        ("gcs", json!({"status": 401})),
        (
            "gcs_presigned",
            json!({"status": 400, "body": "<Error><Code>ExpiredToken</Code></Error>"}),
        ),
    ] {
        on(&world, cloud, 128).await;
        let mut session = world.login().await;
        let (_directory, path, content) = file(1000);
        let before = world.statements("put").await.len();
        world
            .fault(json!({"kind": "objectstore", "method": "PUT"}), expired)
            .await;
        session
            .put(&path, &format!("~/{cloud}/"), NAME, &|_| {})
            .await
            .unwrap();
        assert_staged(&world, &format!("@~/{cloud}/"), &content).await;
        let puts = world.statements("put").await.split_off(before);
        assert_eq!(puts.len(), 2, "{cloud}");
        assert_ne!(puts[0]["query"]["requestId"], puts[1]["query"]["requestId"]);
    }
}

/// Puts files with names in directories below one, as uploads that share a COPY have them, and looks whether they are there.
/// Returns how many statements that took, and the first one.
async fn put_several(world: &World, cloud: &str) -> (usize, String) {
    on(world, cloud, 128).await;
    let mut session = world.login().await;
    let before = world.statements("put").await.len();
    let files: Vec<_> = (0..20)
        .map(|n| (file(1000 + n), format!("upload-{n}/1/")))
        .collect();
    let names: Vec<String> = files
        .iter()
        .map(|(_, directory)| format!("{directory}{NAME}"))
        .collect();
    let local: Vec<LocalFile<'_>> = files
        .iter()
        .zip(&names)
        .map(|(((_, path, _), _), name)| LocalFile {
            path: path.clone(),
            written: None,
            name,
        })
        .collect();
    let told = Mutex::new(0);
    let note = |bytes| *told.lock().unwrap() = bytes;
    let root = format!("~/{cloud}/");
    session.put_all(&root, &local, &note).await.unwrap();
    let sizes = files
        .iter()
        .map(|((_, _, content), _)| content.len() as u64);
    assert_eq!(told.into_inner().unwrap(), sizes.sum::<u64>());
    for ((_, _, content), directory) in &files {
        assert_staged(world, &format!("@{root}{directory}"), content).await;
    }
    let puts = world.statements("put").await.split_off(before);
    (puts.len(), puts[0]["sql"].as_str().unwrap().to_owned())
}

async fn put_together(world: World) {
    for (cloud, statements) in [("s3", 1), ("azure", 1), ("gcs", 1), ("gcs_presigned", 21)] {
        let (puts, first) = put_several(&world, cloud).await;
        assert_eq!(puts, statements, "{cloud}");
        assert!(
            first.starts_with("PUT 'file:///snowflake_bridge/*' "),
            "{first}"
        );
    }
}

async fn renewal_among_several(world: World) {
    let refused = "<Error><Code>AuthenticationFailed</Code></Error>";
    for (cloud, refused) in [
        (
            "s3",
            json!({"status": 400, "body": "<Error><Code>ExpiredToken</Code></Error>"}),
        ),
        ("azure", json!({"status": 403, "body": refused})),
        ("gcs", json!({"status": 401})),
    ] {
        // Each time that some have gone through, the credentials are of no use any more.
        for name in ["upload-1/", "upload-15/"] {
            let matching = json!({"kind": "objectstore", "method": "PUT", "path": name});
            world.fault(matching, refused.clone()).await;
        }
        let (puts, _) = put_several(&world, cloud).await;
        assert_eq!(puts, 3, "{cloud}");
    }
}

async fn renewal_in_parts(world: World) {
    for (cloud, part) in [("s3", "partNumber"), ("azure", "blockid")] {
        on(&world, cloud, 128).await;
        let mut session = world.login().await;
        let (_directory, path, content) = file(LARGE);
        let before = world.statements("put").await.len();
        // All that was handed out so far is of no use once the first part has arrived.
        let expiry = async {
            world
                .wait_for(|record| {
                    record["kind"] == "objectstore" && record["query"][part].is_string()
                })
                .await;
            world
                .admin(Method::POST, "expire-stage-credentials", Value::Null)
                .await;
        };
        // So that the first parts do not all go through before that.
        let slow = json!({"throttle": 4 << 20});
        world
            .fault(json!({"kind": "objectstore", "method": "PUT"}), slow)
            .await;
        let location = format!("~/parts-{cloud}/");
        let (put, ()) = tokio::join!(session.put(&path, &location, NAME, &|_| {}), expiry);
        put.unwrap();
        assert_staged(&world, &format!("@{location}"), &content).await;
        assert_eq!(world.statements("put").await.len() - before, 2, "{cloud}");
    }
}

async fn retries(world: World) {
    for cloud in ["s3", "azure", "gcs", "gcs_presigned"] {
        on(&world, cloud, 128).await;
        let before = world.statements("put").await.len();
        let mut session = world.login().await;
        for (n, action) in [
            json!({"status": 503, "body": "<Error><Code>SlowDown</Code></Error>"}),
            json!({"status": 500}),
            json!({"lose_answer": true}),
            json!({"cut_request_after": 100}),
        ]
        .into_iter()
        .enumerate()
        {
            let (_directory, path, content) = file(100_000);
            world
                .fault(json!({"kind": "objectstore", "method": "PUT"}), action)
                .await;
            let location = format!("~/{cloud}/{n}/");
            session.put(&path, &location, NAME, &|_| {}).await.unwrap();
            assert_staged(&world, &format!("@{location}"), &content).await;
        }
        let puts = world.statements("put").await;
        assert_eq!(
            puts.len() - before,
            4,
            "{cloud}: the storage's trouble is not Snowflake's"
        );
    }
}

async fn refused(world: World) {
    let mut session = world.login().await;
    let (_directory, path, _) = file(10);
    let stage = |more: Value| {
        let mut stage = json!({
            "locationType": "S3", "location": "bucket/a/", "region": "us-west-2", "endPoint": null,
            "creds": {"AWS_KEY_ID": "k", "AWS_SECRET_KEY": "s", "AWS_TOKEN": "t"},
        });
        for (key, value) in more.as_object().unwrap() {
            stage[key] = value.clone();
        }
        stage
    };
    let material =
        json!({"queryStageMasterKey": "ztke8tIdVt1zmlQIZm0BMA==", "queryId": "q", "smkId": 1});
    for (stage, material, kind) in [
        (
            stage(json!({"locationType": concat!("LOCAL", "_FS"), "location": "/tmp/"})),
            Value::Null,
            ErrorKind::Configuration,
        ),
        (
            stage(json!({"locationType": "FTP"})),
            Value::Null,
            ErrorKind::Configuration,
        ),
        (
            stage(json!({"ciphers": "AES_GCM"})),
            material.clone(),
            ErrorKind::Configuration,
        ),
        (
            stage(json!({"endPoint": "attacker.example"})),
            material.clone(),
            ErrorKind::Configuration,
        ),
        (
            stage(json!({"endPoint": "169.254.169.254"})),
            material.clone(),
            ErrorKind::Configuration,
        ),
        (
            stage(json!({"isClientSideEncrypted": true})),
            Value::Null,
            ErrorKind::Internal,
        ),
        (
            stage(json!({"creds": null})),
            material.clone(),
            ErrorKind::Internal,
        ),
        (
            stage(json!({"location": "bucket/../etc/"})),
            material,
            ErrorKind::Internal,
        ),
    ] {
        let body = json!({"success": true, "code": null, "message": null, "data": {
            "command": "UPLOAD", "src_locations": ["/etc/passwd"], "stageInfo": stage, "encryptionMaterial": material,
        }});
        let action = json!({"status": 200, "body": body.to_string()});
        world.fault(json!({"sql": "^put"}), action).await;
        let error = session.put(&path, "~/a/", NAME, &|_| {}).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{stage}: {error}");
    }
    assert!(world.requests("objectstore").await.is_empty());
    let listed = run(&mut session, "list '@~/'").await;
    assert!(listed.rows.is_empty());
}
