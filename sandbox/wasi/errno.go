package wasi

// errno is an error code of WASI preview 1.
type errno uint16

const (
	eBadf        errno = 8
	eExist       errno = 20
	eFault       errno = 21
	eFbig        errno = 22
	eIlseq       errno = 25
	eInval       errno = 28
	eIO          errno = 29
	eIsdir       errno = 31
	eLoop        errno = 32
	eMfile       errno = 33
	eNametoolong errno = 37
	eNoent       errno = 44
	eNospc       errno = 51
	eNosys       errno = 52
	eNotdir      errno = 54
	eNotempty    errno = 55
	eNotsock     errno = 57
	eNotsup      errno = 58
	ePerm        errno = 63
	eRofs        errno = 69
	eSpipe       errno = 70
	eXdev        errno = 75
	eNotcapable  errno = 76
)

// The rights that descriptors are given. Programs look at them (wasi-libc takes a character device without seek for a
// terminal); of those asked for at an open only reading and writing count.
const (
	rightRead    = 1 << 1
	rightWrite   = 1 << 6
	rightAlloc   = 1 << 8
	rightReaddir = 1 << 14
	rightSetSize = 1 << 22

	rightsAll       = 1<<28 - 1
	rightsFile      = 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<21 | 1<<22 | 1<<23 | 1<<27
	rightsStdin     = rightsFile &^ (rightWrite | rightAlloc | rightSetSize)
	rightsStream    = 1<<0 | 1<<3 | 1<<4 | rightWrite | 1<<21 | 1<<27
	rightsDirectory = rightsAll &^ (rightRead | rightWrite | rightAlloc | 1<<2 | 1<<5 | 1<<7 | rightSetSize)
)

// File types.
const (
	typeDirectory = 3
	typeRegular   = 4
	typeSymlink   = 7
)

// Flags of path_open and of descriptors.
const (
	openCreate    = 1
	openDirectory = 2
	openExclusive = 4
	openTruncate  = 8

	flagAppend = 1
	flagsKnown = 31
)
