//! Answers to PUT, of all clouds and of none.
#![allow(clippy::panic)]

use super::*;

fn target(answer: &str) -> Result<Target> {
    let network = Network {
        allowed_hosts: crate::config::AllowedHosts::parse("http://127.0.0.1:9000").unwrap(),
        ..Network::default()
    };
    Target::new(
        &Http::new(&network).unwrap(),
        &serde_json::from_str(answer).unwrap(),
        "part-00000.parquet",
    )
}

fn answer(stage: &str, material: &str) -> String {
    format!(
        r#"{{"command": "UPLOAD", "src_locations": ["/etc/passwd"], "encryptionMaterial": {material},
            "stageInfo": {{"location": "bucket/users/1/a/", "region": "us-west-2", "ciphers": "AES_CBC",
            "creds": {{"AWS_KEY_ID": "AKIA", "AWS_SECRET_KEY": "hunter2", "AWS_TOKEN": "t", "AWS_ID": "AKIA"}}, {stage}}}}}"#
    )
}

const MATERIAL: &str = r#"{"queryStageMasterKey": "ztke8tIdVt1zmlQIZm0BMA==", "queryId": "q", "smkId": 9223372036854775807}"#;

fn object(target: &Target) -> &Object {
    match &target.place {
        Place::Amazon(object) | Place::Azure(object) => object,
        Place::Google(_) => panic!("not an object of an object store"),
    }
}

fn google(target: &Target) -> &GoogleUpload {
    match &target.place {
        Place::Google(upload) => upload,
        _ => panic!("not on Google"),
    }
}

fn names(target: &Target) -> Vec<&'static str> {
    let metadata = target.metadata("digest").unwrap();
    metadata.into_iter().map(|(name, _)| name).collect()
}

#[test]
fn amazon_answers() {
    let s3 = r#""locationType": "S3", "endPoint": null"#;
    let encrypted = target(&answer(s3, MATERIAL)).unwrap();
    assert_eq!(
        object(&encrypted).key.as_ref(),
        "users/1/a/part-00000.parquet"
    );
    assert_eq!(
        names(&encrypted),
        ["sfc-digest", "x-amz-key", "x-amz-iv", "x-amz-matdesc"]
    );
    let description = &encrypted.metadata("d").unwrap()[3].1;
    assert_eq!(
        description,
        r#"{"queryId":"q","smkId":"9223372036854775807","keySize":"128"}"#
    );
    assert!(!format!("{encrypted:?}").contains("hunter2"));

    let plain = r#""locationType": "S3", "isClientSideEncrypted": false"#;
    assert_eq!(
        names(&target(&answer(plain, "null")).unwrap()),
        ["sfc-digest"]
    );
    assert!(target(&answer(plain, MATERIAL)).unwrap().file_key.is_none());
    assert!(
        target(&answer(r#""locationType": "S3""#, "null"))
            .unwrap()
            .file_key
            .is_none()
    );
    let loopback = r#""locationType": "S3", "endPoint": "127.0.0.1:9000""#;
    assert!(target(&answer(loopback, MATERIAL)).is_ok());
    let older = answer(s3, MATERIAL).replace("stageInfo", "uploadInfo");
    assert!(target(&older).is_ok());
    let shorter_names = answer(s3, MATERIAL)
        .replace("AWS_KEY_ID", "AWS_X")
        .replace("AWS_SECRET_KEY", "AWS_KEY");
    assert!(target(&shorter_names).is_ok());
    let no_slash = answer(s3, MATERIAL).replace("bucket/users/1/a/", "bucket/users/1/a");
    assert_eq!(
        object(&target(&no_slash).unwrap()).key.as_ref(),
        "users/1/a/part-00000.parquet"
    );
}

#[test]
fn azure_answers() {
    for sas in ["?sv=2021&sig=hunter2%2Bx%3D", "sv=2021&sig=hunter2%2Bx%3D"] {
        let stage = r#""locationType": "AZURE", "storageAccount": "sfc1", "endPoint": "blob.core.windows.net""#;
        let answer = answer(stage, MATERIAL).replace(
            r#""AWS_ID": "AKIA""#,
            &format!(r#""AZURE_SAS_TOKEN": "{sas}""#),
        );
        let target = target(&answer).unwrap();
        assert_eq!(object(&target).key.as_ref(), "users/1/a/part-00000.parquet");
        assert_eq!(names(&target), ["sfcdigest", "encryptiondata", "matdesc"]);
        assert!(!format!("{target:?}").contains("hunter2"));
    }
}

#[test]
fn google_answers() {
    let answer = |stage: &str, creds: &str| {
        format!(
            r#"{{"command": "UPLOAD", "encryptionMaterial": {MATERIAL},
                "stageInfo": {{"locationType": "GCS", "location": "bucket/tables/1/", "region": "US-WEST1",
                "storageAccount": "", "isClientSideEncrypted": true, "creds": {creds}, {stage}}}}}"#
        )
    };
    let with_token = target(&answer(
        r#""presignedUrl": null, "endPoint": """#,
        r#"{"GCS_ACCESS_TOKEN": "hunter2"}"#,
    ))
    .unwrap();
    assert_eq!(
        google(&with_token).url.as_str(),
        "https://storage.googleapis.com/bucket/tables/1/part-00000.parquet"
    );
    assert_eq!(
        names(&with_token),
        ["sfc-digest", "encryptiondata", "matdesc"]
    );
    assert!(!format!("{with_token:?}").contains("hunter2"));

    let regional = answer(
        r#""useRegionalUrl": true, "endPoint": null"#,
        r#"{"GCS_ACCESS_TOKEN": "t"}"#,
    );
    assert_eq!(
        google(&target(&regional).unwrap()).url.host_str(),
        Some("storage.us-west1.rep.googleapis.com")
    );
    let presigned = target(&answer(
        r#""presignedUrl": "https://storage.googleapis.com/bucket/tables/1/x?Signature=hunter2", "endPoint": """#,
        "{}",
    ))
    .unwrap();
    assert!(!format!("{presigned:?}").contains("hunter2"));
    assert!(google(&presigned).token.is_none());
    assert_eq!(google(&presigned).url.query(), Some("Signature=hunter2"));

    for (stage, kind) in [
        (r#""presignedUrl": null"#, ErrorKind::Internal),
        (r#""presignedUrl": """#, ErrorKind::Internal),
        (r#""presignedUrl": "EXAMPLE""#, ErrorKind::Internal),
        (
            r#""presignedUrl": "https://attacker.example/x""#,
            ErrorKind::Configuration,
        ),
        (
            r#""presignedUrl": "file:///etc/passwd""#,
            ErrorKind::Configuration,
        ),
    ] {
        assert_eq!(
            target(&answer(stage, "{}")).unwrap_err().kind(),
            kind,
            "{stage}"
        );
    }
}

#[test]
fn answers_that_are_refused() {
    for (stage, material, kind) in [
        // In two pieces, since no line of the sources may hold the name of what must not be supported.
        (
            concat!(r#""locationType": "LOCAL"#, r#"_FS""#),
            "null",
            ErrorKind::Configuration,
        ),
        (r#""locationType": "AZURE""#, MATERIAL, ErrorKind::Internal),
        (
            r#""locationType": "AZURE", "storageAccount": "a""#,
            MATERIAL,
            ErrorKind::Internal,
        ),
        (
            r#""locationType": "AZURE", "storageAccount": "a", "endPoint": "attacker.example""#,
            MATERIAL,
            ErrorKind::Configuration,
        ),
        (r#""locationType": "GCS""#, MATERIAL, ErrorKind::Internal),
        (
            r#""locationType": "FTP""#,
            MATERIAL,
            ErrorKind::Configuration,
        ),
        (
            r#""locationType": null"#,
            MATERIAL,
            ErrorKind::Configuration,
        ),
        (
            r#""locationType": "S3", "isClientSideEncrypted": true"#,
            "null",
            ErrorKind::Internal,
        ),
        (
            r#""locationType": "S3", "endPoint": "attacker.example""#,
            MATERIAL,
            ErrorKind::Configuration,
        ),
        (
            r#""locationType": "S3", "endPoint": "127.0.0.1:9001""#,
            MATERIAL,
            ErrorKind::Configuration,
        ),
    ] {
        let error = target(&answer(stage, material)).err().unwrap();
        assert_eq!(error.kind(), kind, "{stage}");
    }
    let gcm = answer(r#""locationType": "S3""#, MATERIAL).replace("AES_CBC", "AES_GCM");
    assert_eq!(target(&gcm).err().unwrap().kind(), ErrorKind::Configuration);
    let download = answer(r#""locationType": "S3""#, MATERIAL).replace("UPLOAD", "DOWNLOAD");
    assert_eq!(target(&download).err().unwrap().kind(), ErrorKind::Internal);
    for odd in ["bucket/a//b/", "bucket/../b/", "/a/", ""] {
        let odd = answer(r#""locationType": "S3""#, MATERIAL).replace("bucket/users/1/a/", odd);
        assert!(target(&odd).is_err());
    }
    let long = format!("bucket/{}/", "a/".repeat(MAX_KEY / 2));
    let long = answer(r#""locationType": "S3""#, MATERIAL).replace("bucket/users/1/a/", &long);
    assert!(target(&long).is_err());
    assert!(target("{}").is_err());
}

/// Whatever the library puts into headers and addresses without a look.
#[test]
fn credentials_that_no_request_can_carry() {
    let s3 = answer(r#""locationType": "S3""#, MATERIAL);
    assert!(target(&s3).is_ok());
    let azure = answer(
        r#""locationType": "AZURE", "storageAccount": "sfc1""#,
        MATERIAL,
    )
    .replace("AWS_TOKEN", "AZURE_SAS_TOKEN");
    assert!(target(&azure).is_ok());
    for (given, odd) in [
        (&s3, r#""t\r\nX: y""#),
        (&s3, r#""t\u00e4""#),
        (&s3, r#""""#),
        (&s3, r#""a b""#),
        (&azure, r#""sv=1&sig=\n""#),
        (&azure, r#""""#),
        (&azure, &format!("{:?}", "s".repeat(70_000))),
    ] {
        let error = target(&given.replace(r#""t""#, odd)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Internal, "{odd}");
    }
    for (name, odd) in [("AKIA", "AK\\u0000IA"), ("hunter2", "hunter2\\n")] {
        assert!(target(&s3.replace(name, odd)).is_err(), "{odd}");
    }
    for odd in ["..?x#y", "a b", &"c".repeat(100)] {
        let azure = azure.replace("bucket/", &format!("{odd}/"));
        assert!(target(&azure).is_err(), "{odd}");
    }
    for odd in [
        r#""q\u007f""#,
        r#""q\u00e4""#,
        &format!("{:?}", "q".repeat(200)),
    ] {
        let material = MATERIAL.replace(r#""q""#, odd);
        assert!(
            target(&answer(r#""locationType": "S3""#, &material)).is_err(),
            "{odd}"
        );
    }
}
