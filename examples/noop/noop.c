// noop does nothing: what it costs is what running a task costs. It is built without a C library.

__attribute__((export_name("_start"))) void _start(void) {}
