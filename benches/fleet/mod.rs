//! A large cluster that exists only as answers of an API server, the real controller's process in
//! front of it, and its nodes' calls.

mod api;
mod controller;
pub mod load;
mod objects;
pub mod tls;
mod tokens;

pub use self::{
    api::Api,
    controller::Controller,
    objects::{Fleet, Pod},
    tokens::Tokens,
};
