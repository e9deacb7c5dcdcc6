package protocol

// SignUnchecked signs a body as a peer would that does not check what it says.
func SignUnchecked(s Signer, b Body) ([]byte, error) {
	payload, err := marshal("body", bodyToWire(b))
	if err != nil {
		return nil, err
	}
	return SignEnvelope(s, domainRecord(b.Kind()), []byte{typeLetter, byte(b.Kind())}, payload)
}

// MessageLimit is the limit of the n-th kind of message.
var MessageLimit = messageLimit
