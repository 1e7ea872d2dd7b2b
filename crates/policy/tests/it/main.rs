//! The policy against transformers, its kernels against their definitions, its engine, its files, its generations, hostile input.

mod engine;
mod fixture;
mod generations;
mod hostile;
mod kernels;
mod odd_shapes;
mod parity;
mod saving;
