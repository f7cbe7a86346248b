//! What the watchdog does to the proxy, through the service manager.
