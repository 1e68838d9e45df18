//! Sider.
