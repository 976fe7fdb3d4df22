//! What of an image is its alone, what it shares, and who holds it: among one's own things only.

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::{Client, Options, TestServer, requires_root};

use super::registry::{DockerRegistry, Image, ended, host_architecture, pull};
use super::support::{Entry, archive};

const BASE_BYTES: u64 = 70_000;

/// An image with a base of [`BASE_BYTES`] that others have too, and a file of its own.
fn image(marker: &str, own_bytes: usize) -> Image {
    let base = archive(&[Entry::file("base", &vec![7; 70_000])]);
    let own = archive(&[Entry::file("own", &marker.as_bytes().repeat(own_bytes / marker.len()))]);
    Image::of(&[base, own], host_architecture())
}

/// The figures of an image in the list and in detail, which must agree.
async fn figures(client: &Client, id: &str) -> (u64, u64, u64) {
    let of = |image: &Value| {
        let figure = |key: &str| image[key].as_u64().unwrap_or_else(|| panic!("{key}: {image}"));
        (figure("unique_bytes"), figure("shared_bytes"), figure("containers"))
    };
    let listed = client.get("/api/v1/images").await.expect_status(200).json();
    let items = listed["items"].as_array().expect("a list");
    let listed = items.iter().find(|image| image["id"] == id).expect("the image is listed");
    let detail = detail(client, id).await;
    assert_eq!(of(listed), of(&detail["image"]));
    of(listed)
}

async fn detail(client: &Client, id: &str) -> Value {
    client.get(&format!("/api/v1/images/{id}")).await.expect_status(200).json()
}

async fn pulled(client: &Client, reference: &str) -> String {
    let done = pull(client, reference).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    done["result"]["image"].as_str().expect("an image").to_owned()
}

#[tokio::test]
async fn figures_and_holders_are_of_ones_own_images_only() {
    requires_root!();
    let Some(registry) = DockerRegistry::start(None) else { return };
    let (first, second) = (image("a", 1000), image("b", 3000));
    registry.push(&first, "first", "v1");
    registry.push(&second, "second", "v1");
    let sections = registry.section();
    let server = TestServer::with(Options { sections, ..Options::default() }).await;
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    let reference = |name: &str| format!("{}/{name}:v1", registry.address);
    let one = pulled(&anna, &reference("first")).await;
    assert_eq!(figures(&anna, &one).await, (BASE_BYTES + 1000, 0, 0));
    let two = pulled(&anna, &reference("second")).await;
    assert_eq!(figures(&anna, &one).await, (1000, BASE_BYTES, 0));
    assert_eq!(figures(&anna, &two).await, (3000, BASE_BYTES, 0));
    let shown = detail(&anna, &one).await;
    let holder = json!([{"id": two, "name": reference("second")}]);
    assert_eq!(shown["layers"][0]["shared_with"], holder);
    assert_eq!(shown["layers"][1]["shared_with"], json!([]));
    assert_eq!(shown["held_by"], json!({"containers": [], "images": holder}));

    // Somebody else pulls the same: nothing of it is to be seen on either side.
    let (before, overseen) = (detail(&anna, &two).await, detail(&server.operator(), &two).await);
    let berts = pulled(&bert, &reference("first")).await;
    assert_eq!(detail(&anna, &two).await, before);
    assert_eq!(detail(&server.operator(), &two).await, overseen);
    assert_eq!(overseen["image"]["unique_bytes"], 3000, "overseers see the owner's figures");
    assert_eq!(figures(&bert, &berts).await, (BASE_BYTES + 1000, 0, 0));
    assert_eq!(detail(&bert, &berts).await["held_by"], json!({"containers": [], "images": []}));
    // Nor when it is the system's, which all see: its figures are those among the system's.
    let layout = image("c", 500).layout_archive("lab/base:v1");
    let request = server.root().request("POST", "/api/v1/images/import");
    let request = request.header("content-type", "application/x-tar").body(layout);
    let begun = send(request).await.expect_status(202).json();
    let done = ended(&server.root(), begun["id"].as_str().expect("an id")).await;
    let system = done["result"]["images"][0].as_str().expect("an image").to_owned();
    assert_eq!(detail(&anna, &two).await, before);
    assert_eq!(figures(&anna, &system).await, (BASE_BYTES + 500, 0, 0));

    // Containers hold an image, and each person sees their own.
    for (who, name) in [(&anna, "annas"), (&bert, "berts")] {
        let body = json!({"name": name, "image": system, "command": ["/own"]});
        who.post("/api/v1/containers", &body).await.expect_status(201);
    }
    assert_eq!(figures(&anna, &system).await.2, 1);
    let holders = detail(&anna, &system).await["held_by"]["containers"].clone();
    assert_eq!(holders.as_array().map(Vec::len), Some(1), "{holders}");
    assert_eq!(holders[0]["name"], "annas");
    assert_eq!(figures(&server.operator(), &system).await.2, 2, "operators see everybody's");
    assert_eq!(detail(&anna, &two).await, before);

    // What goes frees what nothing else of one's own has.
    anna.delete(&format!("/api/v1/images/{one}")).await.expect_status(204);
    assert_eq!(figures(&anna, &two).await, (BASE_BYTES + 3000, 0, 0));
    assert_eq!(figures(&bert, &berts).await, (BASE_BYTES + 1000, 0, 0));
}
