//! Process. The process itself; computed when the page is written.

use super::Family;
use super::Kind::{Counter, Gauge};

families! {
    PROXY_BUILD_INFO Gauge, "proxy_build_info", ["version", "git_branch", "git_version", "profile", "vendor"],
        "The build that is running; always 1.";
    PROCESS_START_TIME_SECONDS Gauge, "process_start_time_seconds", [],
        "Unix time at which the process started.";
    PROCESS_UPTIME_SECONDS_TOTAL Counter, "process_uptime_seconds_total", [],
        "Seconds since the process started.";
    PROCESS_CPU_SECONDS_TOTAL Counter, "process_cpu_seconds_total", [],
        "User and system CPU seconds used.";
    PROCESS_RESIDENT_MEMORY_BYTES Gauge, "process_resident_memory_bytes", [],
        "Resident memory.";
    PROCESS_VIRTUAL_MEMORY_BYTES Gauge, "process_virtual_memory_bytes", [],
        "Virtual memory.";
    PROCESS_OPEN_FDS Gauge, "process_open_fds", [],
        "Open file descriptors.";
    PROCESS_MAX_FDS Gauge, "process_max_fds", [],
        "Most file descriptors the process may open.";
    PROCESS_THREADS Gauge, "process_threads", [],
        "Threads of the process.";
    WORKER_ACCEPTED_CONNECTIONS_TOTAL Counter, "worker_accepted_connections_total", ["worker", "direction"],
        "Connections accepted, by the worker thread that serves them.";
    PROXY_WORKER_LAG_SECONDS Gauge, "proxy_worker_lag_seconds", [],
        "How far the slowest worker thread is behind its heartbeat.";
    PROXY_LOG_LINES_DROPPED_TOTAL Counter, "proxy_log_lines_dropped_total", ["log"],
        "Lines left out of a log (refusals: more than 10 a second on a worker; access: the writer is behind).";
    LIMIT_REACHED_TOTAL Counter, "limit_reached_total", ["limit"],
        "Times that a bound was reached that has no metric of its own, by its name on the page of limits.";
    // Spans.
    OPENTELEMETRY_SPAN_EXPORT_STREAMS Counter, "opentelemetry_span_export_streams", [],
        "Calls to the collector of traces that were begun.";
    OPENTELEMETRY_SPAN_EXPORT_REQUESTS Counter, "opentelemetry_span_export_requests", [],
        "Messages with spans sent to the collector.";
    OPENTELEMETRY_SPAN_EXPORTS Counter, "opentelemetry_span_exports", [],
        "Spans that the collector has taken.";
    TRACE_SPANS_DROPPED_TOTAL Counter, "trace_spans_dropped_total", ["reason"],
        "Spans that were lost (queue_full: more than a worker keeps, while the collector is slow or away; rejected: the collector refused them; failed: it took none in ten tries).";

    PROXY_PANICS_TOTAL Counter, "proxy_panics_total", [],
        "Panics caught: each is a bug and has ended one task.";
    PROXY_METRICS_SERIES Gauge, "proxy_metrics_series", [],
        "Series held in the registry.";
    PROXY_METRICS_SERIES_REFUSED_TOTAL Counter, "proxy_metrics_series_refused_total", [],
        "Series that found no room (16,000 in all, 3,500 of a family) and are counted in their family's overflow.";
    PROXY_METRICS_SERIES_EVICTED_TOTAL Counter, "proxy_metrics_series_evicted_total", [],
        "Idle series forgotten.";
    RUSTLS_INFO Gauge, "rustls_info", ["tls_suites", "tls_kx_groups", "tls_rand", "tls_key_provider", "tls_fips"],
        "The cryptography of the mesh's TLS; always 1.";
    TOKIO_RT_WORKERS Gauge, "tokio_rt_workers", [],
        "Worker threads, each with a runtime of its own.";
    TOKIO_RT_PARK_TOTAL Counter, "tokio_rt_park_total", [],
        "Times that worker threads had nothing to do and slept.";
    TOKIO_RT_STEAL_TOTAL Counter, "tokio_rt_steal_total", [],
        "Tasks that worker threads took from each other: always 0, each has a runtime of its own.";
    TOKIO_RT_STEAL_OPERATIONS_TOTAL Counter, "tokio_rt_steal_operations_total", [],
        "Times that they did: always 0.";
    TOKIO_RT_OVERFLOW_TOTAL Counter, "tokio_rt_overflow_total", [],
        "Times that a worker thread's queue was full and tasks went to a shared one: always 0, there is none.";
    TOKIO_RT_PARK_UNPARK_TOTAL Counter, "tokio_rt_park_unpark_total", [],
        "Times that worker threads slept or woke; an odd number of one thread means that it sleeps.";
    TOKIO_RT_BUSY_SECONDS_TOTAL Counter, "tokio_rt_busy_seconds_total", [],
        "Seconds that worker threads were busy.";
    TOKIO_RT_INJECTION_QUEUE_DEPTH Gauge, "tokio_rt_injection_queue_depth", [],
        "Tasks woken from other threads that wait for their worker.";
    TOKIO_RT_ALIVE_TASKS Gauge, "tokio_rt_alive_tasks", [],
        "Tasks of the worker threads.";
}
