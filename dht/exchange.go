package dht

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/record"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-varint"
)

// The exchange: who opens the stream sends its own signed peer record and closes its side; the other answers with the
// records of peers it is connected to. Because the question carries the asker's addresses, whoever asks later hears of
// it: of two peers that join through the same third one, the later always learns of the earlier.
// A message is a count and as many records, each a length and a libp2p signed envelope; numbers are unsigned varints.
const (
	// maxRecords bounds an answer: what a peer below its target degree can use, at the default degree.
	maxRecords = 64
	// maxRecord bounds one record: two keys, a signature and maxAddrs addresses take 600 bytes.
	maxRecord = 2 << 10
	// maxAddrs, maxAddrBytes bound what is kept of one peer's addresses: TCP and QUIC, IPv4 and IPv6, on three
	// interfaces; a DNS name of the longest kind.
	maxAddrs     = 12
	maxAddrBytes = 300
	// exchangeTimeout bounds one exchange, at both ends: 40 KiB over a slow link.
	exchangeTimeout = 10 * time.Second
)

var errMalformed = errors.New("malformed message")

// ask tells p this peer's addresses and returns the peers it names, by records they signed.
func (n *Network) ask(ctx context.Context, p peer.ID) ([]peer.AddrInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	s, err := n.host.NewStream(network.WithNoDial(ctx, "exchange"), p, n.exchange)
	if err != nil {
		return nil, fmt.Errorf("dht: ask peer %s for others: %w", p, err)
	}
	defer s.Reset()
	_ = s.SetDeadline(time.Now().Add(exchangeTimeout))
	own, err := n.ownRecord()
	if err != nil {
		return nil, err
	}
	if err := writeRecords(s, [][]byte{own}); err != nil {
		return nil, fmt.Errorf("dht: ask peer %s for others: %w", p, err)
	}
	if err := s.CloseWrite(); err != nil {
		return nil, fmt.Errorf("dht: ask peer %s for others: %w", p, err)
	}
	records, err := readRecords(s, maxRecords)
	if err != nil {
		return nil, fmt.Errorf("dht: ask peer %s for others: %w", p, err)
	}
	local := onLoopback(s.Conn().RemoteMultiaddr())
	var found []peer.AddrInfo
	for _, bytes := range records {
		if n.isKnown(bytes) {
			continue
		}
		_, rec, err := openRecord(bytes)
		if err != nil {
			return nil, fmt.Errorf("dht: ask peer %s for others: %w", p, err)
		}
		if addrs := dialable(rec.Addrs, local); rec.PeerID != n.ID() && len(addrs) > 0 {
			found = append(found, peer.AddrInfo{ID: rec.PeerID, Addrs: addrs})
		}
	}
	return found, nil
}

// isKnown tells whether a record claims to be of a connected peer: checking its signature would be wasted.
func (n *Network) isKnown(bytes []byte) bool {
	envelope, err := record.UnmarshalEnvelope(bytes)
	if err != nil {
		return false
	}
	p, err := peer.IDFromPublicKey(envelope.PublicKey)
	return err == nil && n.presence.isUp(p)
}

// answer is the other side of ask.
func (n *Network) answer(s network.Stream) {
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(exchangeTimeout))
	p := s.Conn().RemotePeer()
	if err := n.hear(p, s); err != nil {
		n.log.Debug("peer exchange refused", "peer", p, "error", err)
		_ = s.Reset()
		return
	}
	// Who speaks this protocol is of this mesh, if identify has not said yet that it isn't.
	n.presence.arrived(p)
	if err := writeRecords(s, n.neighbours(p)); err != nil {
		n.log.Debug("peer exchange broken off", "peer", p, "error", err)
		_ = s.Reset()
	}
}

// hear reads the asker's own record and keeps it with the peer's addresses.
func (n *Network) hear(p peer.ID, r io.Reader) error {
	records, err := readRecords(r, 1)
	if err != nil {
		return err
	}
	for _, bytes := range records {
		envelope, rec, err := openRecord(bytes)
		if err != nil {
			return err
		}
		if rec.PeerID != p {
			return fmt.Errorf("%w: record of another peer", errMalformed)
		}
		if book, ok := peerstore.GetCertifiedAddrBook(n.host.Peerstore()); ok {
			if _, err := book.ConsumePeerRecord(envelope, peerstore.TempAddrTTL); err != nil {
				return err
			}
		}
	}
	return nil
}

// neighbours are the records of connected peers of this mesh, without the asker: a random choice if there are more
// than fit.
func (n *Network) neighbours(asker peer.ID) [][]byte {
	book, ok := peerstore.GetCertifiedAddrBook(n.host.Peerstore())
	if !ok {
		return nil
	}
	peers := n.presence.peers()
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	var out [][]byte
	for _, p := range peers {
		envelope := book.GetPeerRecord(p)
		if p == asker || envelope == nil {
			continue
		}
		if bytes, err := envelope.Marshal(); err == nil && len(bytes) <= maxRecord {
			out = append(out, bytes)
		}
		if len(out) == maxRecords {
			break
		}
	}
	return out
}

// ownRecord is this peer's addresses of the moment, signed.
func (n *Network) ownRecord() ([]byte, error) {
	rec := peer.NewPeerRecord()
	rec.PeerID = n.ID()
	rec.Addrs = dialable(n.host.Addrs(), true)
	rec.Seq = peer.TimestampSeq()
	envelope, err := record.Seal(rec, n.cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("dht: sign own addresses: %w", err)
	}
	bytes, err := envelope.Marshal()
	if err != nil {
		return nil, fmt.Errorf("dht: sign own addresses: %w", err)
	}
	return bytes, nil
}

// addrsOf is where a connected peer can be reached again: what it signed, else what it told.
func (n *Network) addrsOf(p peer.ID) []multiaddr.Multiaddr {
	if book, ok := peerstore.GetCertifiedAddrBook(n.host.Peerstore()); ok {
		if envelope := book.GetPeerRecord(p); envelope != nil {
			var rec peer.PeerRecord
			if envelope.TypedRecord(&rec) == nil {
				return dialable(rec.Addrs, n.isLocal(p))
			}
		}
	}
	return dialable(n.host.Peerstore().Addrs(p), n.isLocal(p))
}

// isLocal tells whether p is connected from this machine.
func (n *Network) isLocal(p peer.ID) bool {
	for _, c := range n.host.Network().ConnsToPeer(p) {
		if onLoopback(c.RemoteMultiaddr()) {
			return true
		}
	}
	return false
}

// openRecord checks a signed peer record: the signature, and that the key is the named peer's and Ed25519.
func openRecord(bytes []byte) (*record.Envelope, *peer.PeerRecord, error) {
	var rec peer.PeerRecord
	envelope, err := record.ConsumeTypedEnvelope(bytes, &rec)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: peer record: %w", errMalformed, err)
	}
	if !isEd25519(rec.PeerID) || !rec.PeerID.MatchesPublicKey(envelope.PublicKey) {
		return nil, nil, fmt.Errorf("%w: peer record of %s: not signed by its Ed25519 key", errMalformed, rec.PeerID)
	}
	return envelope, &rec, nil
}

// writeRecords sends a message of at most maxRecords records.
func writeRecords(w io.Writer, records [][]byte) error {
	message := varint.ToUvarint(uint64(len(records)))
	for _, r := range records {
		message = append(message, varint.ToUvarint(uint64(len(r)))...)
		message = append(message, r...)
	}
	_, err := w.Write(message)
	return err
}

// readRecords reads a message of at most most records. Nothing is allocated for a size that is over its limit.
func readRecords(r io.Reader, most uint64) ([][]byte, error) {
	in := bufio.NewReader(r)
	count, err := varint.ReadUvarint(in)
	if err != nil {
		return nil, fmt.Errorf("%w: count: %w", errMalformed, err)
	}
	if count > most {
		return nil, fmt.Errorf("%w: %d records, the limit is %d", errMalformed, count, most)
	}
	var records [][]byte
	for range count {
		size, err := varint.ReadUvarint(in)
		if err != nil {
			return nil, fmt.Errorf("%w: size of a record: %w", errMalformed, err)
		}
		if size > maxRecord {
			return nil, fmt.Errorf("%w: record of %d bytes, the limit is %d", errMalformed, size, maxRecord)
		}
		bytes := make([]byte, size)
		if _, err := io.ReadFull(in, bytes); err != nil {
			return nil, fmt.Errorf("%w: record: %w", errMalformed, err)
		}
		records = append(records, bytes)
	}
	return records, nil
}
