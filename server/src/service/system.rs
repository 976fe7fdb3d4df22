//! Facts of this server and of its host.

use berth_runtime::wire::Hello;

use crate::app::App;
use crate::error::Result;

/// Whether requests can be served: the inventory can be written, the supervisor answers.
///
/// # Errors
/// Why not.
pub async fn ready(app: &App) -> Result<()> {
    app.inventory.probe().await?;
    app.runtime.hello().await?;
    Ok(())
}

/// What the supervisor says of itself and of the host.
pub async fn hello(app: &App) -> Result<Hello> {
    Ok(app.runtime.hello().await?)
}
