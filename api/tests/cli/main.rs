//! The program as people meet it: its command line, and the private PostgreSQL behind it.

mod postgres;
