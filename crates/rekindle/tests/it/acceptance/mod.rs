//! Whole jobs on real servers through the real program, and everything that must not look like
//! success.

mod container_stack;
mod containers;
mod containers_monitoring;
mod damage;
mod faults_containers;
mod faults_files;
mod faults_postgres;
mod faults_redis;
mod faults_storage;
mod grafana;
mod hooks;
mod in_place;
mod interop;
mod kill;
mod locks;
mod partial;
mod prometheus;
mod roundtrip;
mod s3;
mod s3_answers;
mod secrets;
mod signals;
mod stack;
