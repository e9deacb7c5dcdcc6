package protocol

// What a peer may say at most. A receiver refuses more before it allocates for it.
const (
	// MaxMessage bounds an encoded message: a page and room for its request.
	MaxMessage = MaxPage + 64<<10
	// MaxPage bounds an encoded page; a page is flushed at half of it, so that one
	// more result of inline outputs always fits.
	MaxPage = 1 << 20
	// MaxRecord bounds a signed record: a Done with MaxReceipts receipts.
	MaxRecord = 8 << 10
	// MaxReceipt bounds a signed receipt: about 300 bytes, and room for later fields.
	MaxReceipt = 1 << 10
	// MaxReceipts bounds the receipts in a Done: twice the default of two.
	MaxReceipts = 4
	// MaxNews bounds the bytes of records in one News, so that beats get through
	// between two of them.
	MaxNews = 256 << 10
	// MaxDetail bounds a text for people inside a record or an answer.
	MaxDetail = 256
	// MaxHints bounds the holders named in one answer.
	MaxHints = 8
	// MaxOpen bounds the ranges without holder named in one answer.
	MaxOpen = 32
	// MaxRunning and MaxHeld bound what one Work of a Beat names.
	MaxRunning = 256
	MaxHeld    = 64
	// MaxGrant bounds the segments of one grant.
	MaxGrant = 16
	// MaxAnnouncement bounds a signed announcement: what gossip sends without a
	// second round trip.
	MaxAnnouncement = 1 << 10
	// MaxAnnouncedKeepers and MaxAnnouncedAddrs keep an announcement under it.
	MaxAnnouncedKeepers = 4
	MaxAnnouncedAddrs   = 4
	// MaxJobs bounds the announcements in one Jobs message.
	MaxJobs = 128
	// MaxStored bounds the pages in one Stored message.
	MaxStored = 1024
	// MaxParts bounds the parts in one Compare: the children of a node of the tree.
	MaxParts = BlockSize
	// MaxPartHashes bounds the hashes of one part: those of the records of a block whose
	// tasks have four each.
	MaxPartHashes = 4 * BlockSize
	// MaxCompareHashes bounds those of a message: 256 KiB, as much as one News.
	MaxCompareHashes = MaxNews / ShortHashSize
	// MaxStages bounds the stages of a job: a tree of fan-in 2 over 2^30 tasks and
	// room beside it.
	MaxStages = 40
	// MaxTasks bounds the tasks of a stage: three levels of seals.
	MaxTasks = 1 << 30
	// MaxLevel is the highest level of a seal.
	MaxLevel = 2
	// MaxOutFiles bounds the /out/ files of one task.
	MaxOutFiles = 256
)
