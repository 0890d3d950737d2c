//! The library behind `cargo infra`. Tests use it to run the same stack with the same steps.
//!
//! A command goes from its options to a [`connection::Connection`], reads the [`stack::Stack`] with its outputs, and calls AWS in
//! [`steps`]. It prints each step to the [`terminal`], and on failure an error with its fix.
//!
//! - [`commands`]: the subcommands, and [`connection`]: the options that choose the stack.
//! - [`aws`]: the AWS CLI, which makes every call to AWS. Built on it: [`stack`] (CloudFormation), [`parameters`] (SSM),
//!   [`reconciler`] (invocations) with [`run_report`], [`subscriptions`] (SNS), [`state_table`], [`log`], [`queue`],
//!   [`bucket`], [`concurrency`] and [`stack_events`].
//! - [`tail`]: the messages of a stack as they arrive, by [`temporary_queues`].
//! - [`site_entries`]: the declared sites; [`site_file`]: a file of sites to add; [`site_sign_in`]: a sign-in that tries a token.
//! - [`targets`]: the targets outside of AWS, with [`target_entries`], [`target_messages`] and [`target_stack`].
//! - [`events`]: the events in the functions' logs, each with its story.
//! - [`release`]: the folder that is deployed, and `cargo_lambda`, which builds its functions for AWS.
//! - [`stack_name`], [`regions`] and [`binaries`]: checks before a deployment.
//! - [`cloud`]: the local cloud, with [`service`] (servers), [`functions`] (local builds), [`python`] (pinned tools),
//!   [`environment`] (isolation from the user's AWS settings), [`sample`] (signed requests) and [`workspace`] (folders).
//! - [`remedies`]: the fixes that error messages name. [`findings`]: what is wrong with a stack, with its fix.
//!   [`interruption`]: Ctrl-C.

pub mod aws;
pub mod binaries;
pub mod bucket;
pub mod cloud;
pub mod commands;
pub mod concurrency;
pub mod connection;
pub mod environment;
pub mod events;
pub mod findings;
pub mod functions;
pub mod interruption;
pub mod log;
pub mod parameters;
pub mod prompt;
pub mod python;
pub mod queue;
pub mod reconciler;
pub mod regions;
pub mod release;
pub mod remedies;
pub mod run_report;
pub mod sample;
pub mod service;
pub mod site_entries;
pub mod site_file;
pub mod site_sign_in;
pub mod stack;
pub mod stack_deletion;
pub mod stack_events;
pub mod stack_name;
pub mod state_table;
pub mod steps;
pub mod subscriptions;
pub mod tail;
pub mod target_entries;
pub mod target_messages;
pub mod target_stack;
pub mod targets;
pub mod temporary_queues;
pub mod terminal;
pub mod workspace;

mod aws_worker;
mod cargo_lambda;
mod local_files;
