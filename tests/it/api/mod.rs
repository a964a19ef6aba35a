//! The local API as a caller sees it: who may call, what each route answers,
//! how much is taken at once.

mod access;
mod edges;
mod grpc;
mod limits;
mod pages;
mod routes;
