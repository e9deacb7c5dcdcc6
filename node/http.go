package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/compute-mesh/mesh/node/api"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// headerTimeout is how long a browser may take to send a request's head.
	headerTimeout = 10 * time.Second
	// serverGrace is how long calls under way have at Close.
	serverGrace = time.Second
)

// serveAPI opens the socket that the user's commands use.
func (n *Node) serveAPI() (err error) {
	if n.listener, err = api.Listen(n.home.dir); err != nil {
		return err
	}
	server := api.NewServer(newBackend(n), n.log)
	server.Handler = withProfiles(server.Handler)
	n.servers = append(n.servers, server)
	n.serve(server, n.listener)
	return nil
}

// serveHTTP opens the loopback address of /metrics; where the port is taken, a free one.
func (n *Node) serveHTTP() error {
	if n.cfg.HTTP == "off" {
		return nil
	}
	l, err := net.Listen("tcp", n.cfg.HTTP)
	if errors.Is(err, syscall.EADDRINUSE) {
		host, _, _ := net.SplitHostPort(n.cfg.HTTP)
		n.log.Info("the dashboard's port is taken; a free one is used", "taken", n.cfg.HTTP)
		l, err = net.Listen("tcp", net.JoinHostPort(host, "0"))
	}
	if err != nil {
		return fmt.Errorf("node: http: %w", err)
	}
	n.dashboard = "http://" + l.Addr().String()
	registry := prometheus.NewRegistry()
	process := collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})
	for _, c := range []prometheus.Collector{metrics{n}, collectors.NewGoCollector(), process} {
		if err := registry.Register(c); err != nil {
			return errors.Join(fmt.Errorf("node: metrics: %w", err), l.Close())
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: onlyLoopback(mux), ReadHeaderTimeout: headerTimeout}
	n.servers = append(n.servers, server)
	n.serve(server, l)
	return nil
}

func (n *Node) serve(server *http.Server, l net.Listener) {
	n.wg.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			n.fail(fmt.Errorf("node: http: %w", err))
		}
	})
}

// onlyLoopback refuses requests whose Host is no name of this machine: a page of another site, whose name its owner
// lets point here, must not read what is served here.
func onlyLoopback(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "this address serves this machine alone", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// closeServers lets short calls end, and cuts off those that wait for something.
func (n *Node) closeServers(ctx context.Context) {
	grace, cancel := context.WithTimeout(ctx, serverGrace)
	defer cancel()
	for _, server := range n.servers {
		if err := server.Shutdown(grace); err != nil {
			_ = server.Close()
		}
	}
	if n.listener != nil {
		_ = n.listener.Close() // removes the socket
	}
}
