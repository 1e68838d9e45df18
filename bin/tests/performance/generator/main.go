// One generator of load for two kinds of servers: Sider by HTTP/1.1, etcd by its own client. A worker for each
// connection sends one request at a time. Prints one JSON object. Addresses of this machine only.
//
//	generator register|lease|query|renew|watch -proto http|etcd -addr HOST:PORT,... [flags]
//	generator offers|fill|expire -addr HOST:PORT,... [flags]    Sider alone
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var (
	proto    = flag.String("proto", "http", "http or etcd")
	addr     = flag.String("addr", "127.0.0.1:8500", "host:port, several separated by commas: workers take turns")
	workers  = flag.Int("c", 16, "connections")
	duration = flag.Duration("d", 5*time.Second, "length of the run")
	count    = flag.Int64("count", 0, "end after this many requests instead")
	number   = flag.Int("n", 10, "instances (query), leases or checks (renew), watchers (watch)")
	batch    = flag.Int("batch", 1, "renewals in one call (renew)")
	services = flag.Int64("services", 1, "services that registrations are spread over")
	prefix   = flag.String("prefix", "i", "prefix of what is registered; a new one for each run")
	stale    = flag.Bool("stale", false, "query: what the server has at once")
	rounds   = flag.Int("rounds", 1, "writes that wake all watchers")
	ring     = flag.Int64("ring", 0, "register: ids that are taken in turn, again and again; 0 for always new ones")
	ttl      = flag.String("ttl", "600s", "TTL of the checks (offers, fill, expire)")
	from     = flag.Int64("from", 0, "fill: the first instance; -n is the one after the last")
	offered  = flag.String("offers", "[]", "offers: what comes at which rate, as JSON; see offers.go")
	filled   = flag.Bool("fill", true, "offers: register -n instances before")
	warm     = flag.Duration("warm", 3*time.Second, "offers: time before what is measured")
	pid      = flag.Int("pid", 0, "watch, expire: process whose memory and time on processors are read")
)

// An operation of one worker; the number counts the requests of all of them.
type operation func(sequence int64) error

// A target is one kind of server. Each call gives what one worker does; preparations are done before.
type target interface {
	register(worker int) operation
	lease(worker int) operation
	query(worker int) operation
	renew(worker int) operation
	// watch connects all watchers. The functions that it gives park them, again after each wake, and write once: then
	// it tells how long it took from the beginning of the write until the first and until the last of them knew of it.
	watch() (park func(), write func(round int) (first, last time.Duration))
}

type result struct {
	requests  int64
	errors    int64
	problem   string
	latencies []time.Duration
}

func main() {
	if len(os.Args) < 2 {
		fail("register, lease, query, renew or watch?")
	}
	kind := os.Args[1]
	if err := flag.CommandLine.Parse(os.Args[2:]); err != nil {
		fail(err)
	}
	for _, address := range addresses() {
		host, _, err := net.SplitHostPort(address)
		if err != nil || (host != "localhost" && !net.ParseIP(host).IsLoopback()) {
			fail("addresses of this machine only, not", address)
		}
	}
	var server target = httpTarget{}
	if *proto == "etcd" {
		server = etcdTarget{}
	}
	makers := map[string]func(int) operation{
		"register": server.register, "lease": server.lease, "query": server.query, "renew": server.renew,
	}
	switch kind {
	case "watch":
		watch(server)
		return
	case "offers":
		offers()
		return
	case "expire":
		expire()
		return
	case "fill":
		begun := time.Now()
		fill(*prefix, *from, int64(*number), *services, *ttl)
		report(map[string]any{"rate": float64(int64(*number)-*from) / time.Since(begun).Seconds()})
		return
	}
	maker, known := makers[kind]
	if !known {
		fail("unknown kind of load:", kind)
	}
	operations := make([]operation, *workers)
	for worker := range operations {
		operations[worker] = maker(worker)
	}
	drive(operations)
}

// drive runs all operations side by side until the time or the number of requests is reached.
func drive(operations []operation) {
	var sequence atomic.Int64
	var all result
	var lock sync.Mutex
	var group sync.WaitGroup
	begun := time.Now()
	until := begun.Add(*duration)
	for _, run := range operations {
		group.Go(func() {
			mine := result{}
			for *count > 0 || time.Now().Before(until) {
				n := sequence.Add(1)
				if *count > 0 && n > *count {
					break
				}
				sent := time.Now()
				if err := run(n); err != nil {
					mine.errors++
					mine.problem = err.Error()
					time.Sleep(time.Millisecond)
					continue
				}
				mine.requests++
				mine.latencies = append(mine.latencies, time.Since(sent))
			}
			lock.Lock()
			defer lock.Unlock()
			all.requests += mine.requests
			all.errors += mine.errors
			all.latencies = append(all.latencies, mine.latencies...)
			if mine.problem != "" {
				all.problem = mine.problem
			}
		})
	}
	group.Wait()
	rate := float64(all.requests*int64(*batch)) / time.Since(begun).Seconds()
	sort.Slice(all.latencies, func(a, b int) bool { return all.latencies[a] < all.latencies[b] })
	quantile := func(share float64) float64 {
		if len(all.latencies) == 0 {
			return 0
		}
		return milliseconds(all.latencies[int(share*float64(len(all.latencies)-1))])
	}
	report(map[string]any{
		"rate": rate, "p50_ms": quantile(0.5), "p99_ms": quantile(0.99), "max_ms": quantile(1),
		"requests": all.requests, "errors": all.errors, "problem": all.problem,
	})
}

func watch(server target) {
	before := resident()
	park, write := server.watch()
	parked := func() float64 {
		park()
		time.Sleep(settling())
		return float64(resident()-before) / float64(*number)
	}
	// Room that a connection took for an answer may stay with it.
	perWatch, again := parked(), 0.0
	var first, last, processor []float64
	for round := 1; round <= *rounds; round++ {
		f, l := write(round)
		processor = append(processor, float64(processing()-beforeWrite)/1000/float64(*number))
		first, last = append(first, milliseconds(f)), append(last, milliseconds(l))
		again = parked()
	}
	report(map[string]any{"bytes_per_watch": perWatch, "bytes_per_watch_again": again, "first_ms": first, "last_ms": last, "processor_us": processor})
}

// settling is how long watchers take to be parked, with room to spare.
func settling() time.Duration { return 2*time.Second + time.Duration(*number)*200*time.Microsecond }

// What [processing] gave just before the last write that woke watchers.
var beforeWrite int64

// resident is the memory of the server's process that is in RAM, in bytes.
func resident() int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", *pid))
	if err != nil {
		return 0
	}
	var kib int64
	for line := range strings.Lines(string(status)) {
		if rest, found := strings.CutPrefix(line, "VmRSS:"); found {
			fmt.Sscan(rest, &kib)
		}
	}
	return kib * 1024
}

// processing is the time that the server's threads were on a processor, in nanoseconds.
func processing() int64 {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", *pid))
	var all int64
	for _, thread := range threads {
		// A thread may have ended.
		content, _ := os.ReadFile(thread)
		var nanoseconds int64
		fmt.Sscan(string(content), &nanoseconds)
		all += nanoseconds
	}
	return all
}

func addresses() []string { return strings.Split(*addr, ",") }

func addressOf(worker int) string { return addresses()[worker%len(addresses())] }

func serviceOf(sequence int64) string { return fmt.Sprintf("service-%d", sequence%*services) }

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func report(figures map[string]any) {
	if err := json.NewEncoder(os.Stdout).Encode(figures); err != nil {
		fail(err)
	}
}

func fail(what ...any) {
	fmt.Fprintln(os.Stderr, what...)
	os.Exit(1)
}

func must(err error) {
	if err != nil {
		fail(err)
	}
}
