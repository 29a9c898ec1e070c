// VMware's own vSphere simulator (govmomi) as a witness for the ESXi connector's tests: a second opinion that is not ours.
//
// It prints one line "READY <address> pid=<pid>" and serves until SIGINT or SIGTERM. Beside /sdk it has two doors of its own:
// POST /_faults (a JSON array of rules replaces all of them) and GET /_requests (what was sent to /sdk since the last look).
package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	_ "github.com/vmware/govmomi/pbm/simulator"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/simulator/esx"
)

// A rule hits calls of one method: after Skip of them, Count times (-1: for ever).
type rule struct {
	Method, Kind, Fault  string
	Count, Skip, DelayMs int
}

type wire struct {
	sync.Mutex
	next  http.Handler
	rules []*rule
	seen  []string
}

const fault = `<?xml version="1.0"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" ` +
	`xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body><soapenv:Fault>` +
	`<faultcode>ServerFaultCode</faultcode><faultstring>injected</faultstring>` +
	`<detail><FAULTFault xmlns="urn:vim25" xsi:type="FAULT"/></detail></soapenv:Fault></soapenv:Body></soapenv:Envelope>`

func (w *wire) hit(body string) *rule {
	w.Lock()
	defer w.Unlock()
	for _, r := range w.rules {
		isMeant := r.Method == "" || strings.Contains(body, "<"+r.Method+" ") || strings.Contains(body, ":"+r.Method+" ")
		if r.Count == 0 || !isMeant {
			continue
		}
		if r.Skip > 0 {
			r.Skip--
			continue
		}
		if r.Count > 0 {
			r.Count--
		}
		hit := *r
		return &hit
	}
	return nil
}

func (w *wire) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	switch in.URL.Path {
	case "/_faults":
		var rules []*rule
		if err := json.NewDecoder(in.Body).Decode(&rules); err != nil {
			http.Error(out, err.Error(), http.StatusBadRequest)
			return
		}
		w.Lock()
		w.rules = rules
		w.Unlock()
		fmt.Fprintln(out, len(rules))
		return
	case "/_requests":
		w.Lock()
		seen := w.seen
		w.seen = []string{}
		w.Unlock()
		_ = json.NewEncoder(out).Encode(seen)
		return
	}
	body, err := io.ReadAll(in.Body)
	if err != nil {
		return
	}
	if in.URL.Path == "/sdk" {
		w.Lock()
		w.seen = append(w.seen, string(body))
		w.Unlock()
	}
	r := w.hit(string(body))
	in.Body = io.NopCloser(bytes.NewReader(body))
	if r == nil {
		w.next.ServeHTTP(out, in)
		return
	}
	time.Sleep(time.Duration(r.DelayMs) * time.Millisecond)
	switch r.Kind {
	case "drop":
		panic(http.ErrAbortHandler)
	case "drop-after", "truncate":
		answer := httptest.NewRecorder()
		w.next.ServeHTTP(answer, in)
		if r.Kind == "truncate" {
			text := answer.Body.Bytes()
			out.Header().Set("Content-Type", "text/xml")
			out.Header().Set("Content-Length", strconv.Itoa(len(text)))
			_, _ = out.Write(text[:len(text)/2])
			out.(http.Flusher).Flush()
		}
		panic(http.ErrAbortHandler)
	case "503":
		http.Error(out, "Service Unavailable", http.StatusServiceUnavailable)
	case "soap":
		out.Header().Set("Content-Type", "text/xml; charset=utf-8")
		out.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(out, strings.ReplaceAll(fault, "FAULT", r.Fault))
	default:
		w.next.ServeHTTP(out, in)
	}
}

func main() {
	isESX := flag.Bool("esx", false, "a stand-alone ESXi instead of a vCenter")
	listen := flag.String("l", "127.0.0.2:0", "address to listen on")
	user := flag.String("u", "", "user; without one any login passes")
	password := flag.String("p", "", "password")
	cert := flag.String("cert", "", "PEM file of the certificate")
	key := flag.String("key", "", "PEM file of its key")
	hosts := flag.Int("host", 3, "hosts in the cluster (vCenter)")
	alone := flag.Int("standalone-host", 1, "hosts outside it (vCenter)")
	machines := flag.Int("vm", 2, "machines in each resource pool")
	stores := flag.Int("ds", 1, "datastores")
	isOn := flag.Bool("autostart", true, "machines are switched on")
	flag.Parse()

	m := simulator.VPX()
	if *isESX {
		m = simulator.ESX()
		esx.HostSystem.Summary.Hardware.MemorySize = 64 << 30
	} else {
		m.ClusterHost, m.Host = *hosts, *alone
	}
	m.Machine, m.Datastore, m.Autostart = *machines, *stores, *isOn
	if err := m.Create(); err != nil {
		log.Fatal(err)
	}
	m.Service.RegisterEndpoints = true
	m.Service.Listen = &url.URL{Scheme: "https", Host: *listen}
	if *user != "" {
		m.Service.Listen.User = url.UserPassword(*user, *password)
	}
	m.Service.TLS = new(tls.Config)
	if *cert != "" {
		pair, err := tls.LoadX509KeyPair(*cert, *key)
		if err != nil {
			log.Fatal(err)
		}
		m.Service.TLS.Certificates = []tls.Certificate{pair}
	}
	s := m.Service.NewServer()
	s.Config.Handler = &wire{next: s.Config.Handler, seen: []string{}}
	fmt.Printf("READY %s pid=%d\n", s.URL.Host, os.Getpid())

	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM)
	<-ended
	s.Close()
	m.Remove()
}
