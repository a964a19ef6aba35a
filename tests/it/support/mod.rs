//! What the tests stand on: the real binary as broker and daemon, members by
//! hand, and ways to disturb them.

#![allow(dead_code, reason = "a helper may serve one group of tests only")]

pub(crate) mod broker;
pub(crate) mod cli;
pub(crate) mod daemon;
pub(crate) mod fake_broker;
pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod keys;
pub(crate) mod mesh;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod slow_line;
pub(crate) mod sqlite;
pub(crate) mod tmpfs;
pub(crate) mod tools;
pub(crate) mod topics;
pub(crate) mod wait;
