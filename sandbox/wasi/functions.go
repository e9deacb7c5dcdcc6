package wasi

// Function is one import that programs may have.
type Function struct {
	Name string
	// Params has a letter per parameter: 'i' for i32, 'I' for i64.
	Params string
	// NoResult is set for proc_exit alone; every other function returns an error code as i32.
	NoResult bool

	call func(s *System, m *memory, a []uint64) errno
}

// Call carries out f for a guest with this linear memory. Each argument is one uint64; i32 arguments are in the low half,
// whatever the high half. It returns the error code for the guest; when Stopped is not nil afterwards, the program must
// not be continued.
func (s *System) Call(f *Function, guest []byte, args []uint64) uint32 {
	m := memory{bytes: guest}
	e := f.call(s, &m, args)
	if m.fault {
		e = eFault
	}
	if s.cfg.Unsaved != nil && s.Unsaved() && s.stop == nil {
		s.cfg.Unsaved()
	}
	return uint32(e)
}

// Functions returns all functions of WASI preview 1.
func Functions() []Function {
	return []Function{
		{Name: "args_get", Params: "ii", call: argsGet},
		{Name: "args_sizes_get", Params: "ii", call: argsSizesGet},
		{Name: "environ_get", Params: "ii", call: environGet},
		{Name: "environ_sizes_get", Params: "ii", call: environSizesGet},
		{Name: "clock_res_get", Params: "ii", call: clockResGet},
		{Name: "clock_time_get", Params: "iIi", call: clockTimeGet},
		{Name: "fd_advise", Params: "iIIi", call: fdAdvise},
		{Name: "fd_allocate", Params: "iII", call: fdAllocate},
		{Name: "fd_close", Params: "i", call: fdClose},
		{Name: "fd_datasync", Params: "i", call: fdSync},
		{Name: "fd_fdstat_get", Params: "ii", call: fdFdstatGet},
		{Name: "fd_fdstat_set_flags", Params: "ii", call: fdFdstatSetFlags},
		{Name: "fd_fdstat_set_rights", Params: "iII", call: fdFdstatSetRights},
		{Name: "fd_filestat_get", Params: "ii", call: fdFilestatGet},
		{Name: "fd_filestat_set_size", Params: "iI", call: fdFilestatSetSize},
		{Name: "fd_filestat_set_times", Params: "iIIi", call: fdFilestatSetTimes},
		{Name: "fd_pread", Params: "iiiIi", call: fdPread},
		{Name: "fd_prestat_get", Params: "ii", call: fdPrestatGet},
		{Name: "fd_prestat_dir_name", Params: "iii", call: fdPrestatDirName},
		{Name: "fd_pwrite", Params: "iiiIi", call: fdPwrite},
		{Name: "fd_read", Params: "iiii", call: fdRead},
		{Name: "fd_readdir", Params: "iiiIi", call: fdReaddir},
		{Name: "fd_renumber", Params: "ii", call: fdRenumber},
		{Name: "fd_seek", Params: "iIii", call: fdSeek},
		{Name: "fd_sync", Params: "i", call: fdSync},
		{Name: "fd_tell", Params: "ii", call: fdTell},
		{Name: "fd_write", Params: "iiii", call: fdWrite},
		{Name: "path_create_directory", Params: "iii", call: pathCreateDirectory},
		{Name: "path_filestat_get", Params: "iiiii", call: pathFilestatGet},
		{Name: "path_filestat_set_times", Params: "iiiiIIi", call: pathFilestatSetTimes},
		{Name: "path_link", Params: "iiiiiii", call: pathLink},
		{Name: "path_open", Params: "iiiiiIIii", call: pathOpen},
		{Name: "path_readlink", Params: "iiiiii", call: pathReadlink},
		{Name: "path_remove_directory", Params: "iii", call: pathRemoveDirectory},
		{Name: "path_rename", Params: "iiiiii", call: pathRename},
		{Name: "path_symlink", Params: "iiiii", call: pathSymlink},
		{Name: "path_unlink_file", Params: "iii", call: pathUnlinkFile},
		{Name: "poll_oneoff", Params: "iiii", call: pollOneoff},
		{Name: "proc_exit", Params: "i", NoResult: true, call: procExit},
		{Name: "proc_raise", Params: "i", call: unsupported},
		{Name: "random_get", Params: "ii", call: randomGet},
		{Name: "sched_yield", Params: "", call: schedYield},
		{Name: "sock_accept", Params: "iii", call: notSocket},
		{Name: "sock_recv", Params: "iiiiii", call: notSocket},
		{Name: "sock_send", Params: "iiiii", call: notSocket},
		{Name: "sock_shutdown", Params: "ii", call: notSocket},
	}
}

func argsGet(s *System, m *memory, a []uint64) errno {
	m.strings(s.cfg.Args, uint32(a[0]), uint32(a[1]))
	return 0
}

func argsSizesGet(s *System, m *memory, a []uint64) errno {
	m.sizes(s.cfg.Args, uint32(a[0]), uint32(a[1]))
	return 0
}

func environGet(s *System, m *memory, a []uint64) errno {
	m.strings(s.cfg.Env, uint32(a[0]), uint32(a[1]))
	return 0
}

func environSizesGet(s *System, m *memory, a []uint64) errno {
	m.sizes(s.cfg.Env, uint32(a[0]), uint32(a[1]))
	return 0
}

func procExit(s *System, _ *memory, a []uint64) errno {
	s.Exit(int32(uint32(a[0])))
	return 0
}

func schedYield(*System, *memory, []uint64) errno { return 0 }

func unsupported(*System, *memory, []uint64) errno { return eNosys }

func notSocket(s *System, _ *memory, a []uint64) errno {
	if _, e := s.descriptor(a[0]); e != 0 {
		return e
	}
	return eNotsock
}
