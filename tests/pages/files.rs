//! Files of a volume in a browser, with and without script: uploaded, looked at, removed.

use fantoccini::Locator;
use serde_json::json;
use system_tests::{TestServer, requires_root};

use crate::browser::{Driver, Script};
use crate::signed_in;

/// A file to be uploaded; it goes with the test.
struct Upload(std::path::PathBuf);

impl Drop for Upload {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

#[tokio::test]
async fn a_file_is_uploaded_found_and_removed() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    for (name, script) in [("anna", Script::On), ("bert", Script::Off)] {
        let client = server.person(name, "user").await;
        client.post("/api/v1/volumes", &json!({"name": "data"})).await.expect_status(201);
        let browser = signed_in(&driver, &server, name, script).await;
        browser.open("/volumes/data").await;
        browser.press("Files").await;
        browser.sees("Nothing is in this folder.").await;
        browser.fill("name", "results").await;
        browser.press("Make it").await;
        browser.sees("results is made.").await;
        browser.open("/volumes/data/files?path=/results").await;
        let file = std::env::temp_dir().join(format!("berth-{}-{name} é.txt", std::process::id()));
        std::fs::write(&file, "content").expect("a file");
        let file = Upload(file);
        let typed = file.0.file_name().expect("a name").to_string_lossy().into_owned();
        let field = browser.client.find(Locator::Css("input[type=file]")).await.expect("a field");
        field.send_keys(&file.0.display().to_string()).await.expect("choose a file");
        browser.press("Upload").await;
        browser.sees(&format!("{typed} is there.")).await;
        let query: String = typed.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("/api/v1/volumes/data/files/content?path=/results/{query}");
        assert_eq!(client.get(&path).await.expect_status(200).text, "content");
        browser.open("/volumes/data/files?path=/results").await;
        assert_eq!(browser.count("#rows tbody tr").await, 1);
        browser.press("Remove…").await;
        browser.sees("Nothing brings it back.").await;
        browser.press("Remove it").await;
        browser.sees("is removed.").await;
        client.get(&path).await.expect_status(404);
        browser.open("/volumes/data/files?path=/none").await;
        browser.sees("There is no such file or folder.").await;
        assert_eq!(browser.complaints().await, Vec::<String>::new());
        browser.close().await;
    }
}
