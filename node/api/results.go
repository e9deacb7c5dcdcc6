package api

// ResultsOptions says which results are wanted.
type ResultsOptions struct {
	Wait    bool // until the job has ended
	Partial bool // what there is, of a job in any state
	Files   bool // the files that tasks wrote to /out/ too
}

// ResultsInfo comes before the outputs.
type ResultsInfo struct {
	Job   string `json:"job"`
	State State  `json:"state"`
	Stage string `json:"stage"`           // whose outputs follow
	Tasks uint64 `json:"tasks"`           // of that stage
	Split string `json:"split,omitempty"` // the rule that the job's input was cut by
	// Mapped says that the stage is the first one: its outputs go with input files.
	Mapped bool `json:"mapped"`
}

// Output is one output of a task: its standard output, or a file that it wrote to /out/.
type Output struct {
	Task  uint64 `json:"task"`
	File  string `json:"file,omitempty"`  // name in /out/; empty: standard output
	Input string `json:"input,omitempty"` // name of the (first) input file of the task's piece
	Bytes uint64 `json:"bytes"`
}

// ResultsSummary comes after the outputs.
type ResultsSummary struct {
	Outputs uint64 `json:"outputs"` // standard outputs sent
	Files   uint64 `json:"files"`   // files in /out/, sent or not
	Bytes   uint64 `json:"bytes"`   // sent
	Missing uint64 `json:"missing"` // tasks without result, with Partial
}

// LogsOptions says whose logs are wanted.
type LogsOptions struct {
	Stage  string  // name; empty: all stages, or the first one with Task
	Task   *uint64 // nil: all tasks
	Follow bool
}

// LogEntry is a part of a task's log: whole lines, but for its last part.
type LogEntry struct {
	Stage   string `json:"stage"`
	Task    uint64 `json:"task"`
	Attempt uint64 `json:"attempt,omitempty"`
	Peer    string `json:"peer,omitempty"`
	Text    string `json:"text"`
}
