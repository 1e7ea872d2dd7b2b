//! The program as its users call it: commands in, what they print and write out. Whole runs that take the machine are in `runs`.

#[path = "../support/mod.rs"]
mod support;

mod benchmarks;
mod cases_judge;
mod cases_learner;
mod cases_models;
mod cases_save;
mod cases_services;
mod cases_settings;
mod cases_turns;
mod chat_endpoint;
mod command_line;
mod data;
mod evaluations;
mod every_key;
mod model_commands;
mod own_corpus;
mod score_contract;
mod search;
mod synthesis;
mod worlds;
