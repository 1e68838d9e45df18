package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"net"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// An offer is one kind of load that arrives at a rate of its own, whatever the server does: request n is due at n/rate.
// Its latency counts from that moment, so that what a slow answer holds up is not left out.
type offer struct {
	Name     string  `json:"name"`
	Kind     string  `json:"kind"` // renew, register, deregister, query or poll.
	Rate     float64 `json:"rate"`
	Workers  int     `json:"c"`
	Number   int64   `json:"n"`          // Checks, or ids that registrations take in turn (0: always new ones).
	First    int64   `json:"first"`      // The first of the new ids.
	Services int64   `json:"services"`   // Services that instances are spread over.
	Prefix   string  `json:"prefix"`     // Of the ids.
	TTL      string  `json:"ttl"`        // Of the checks of new instances.
	Delay    float64 `json:"delay_s"`    // Begins this much later.
	Patience float64 `json:"patience_s"` // What is late by more when a connection becomes free is not sent.
}

// What became of the requests of one offer in the time that is measured.
type tally struct {
	accepted, sent, refused, refusedSent, late []time.Duration
	statuses                                   map[int]int64
	abandoned                                  int64
	problem                                    string
	done, declined                             map[int64]int64 // By the second in which they were answered.
	polls                                      []wake
}

// An answer to a poll.
type wake struct {
	index int64
	at    time.Time
}

func newTally() tally {
	return tally{statuses: map[int]int64{}, done: map[int64]int64{}, declined: map[int64]int64{}}
}

// The request n of an offer.
func (o *offer) request(n int64) (method, path, body string) {
	id := o.First + n
	switch o.Kind {
	case "renew":
		return "PUT", fmt.Sprintf("/v1/agent/check/pass/chk:%s-%d:0", o.Prefix, n%o.Number), ""
	case "register":
		if o.Number > 0 {
			id = scattered(n, o.Number)
		}
		// The port differs each time: else a registration would change nothing.
		body := instanceOf(fmt.Sprintf("%s-%d", o.Prefix, id%o.Services), fmt.Sprintf("%s-%d", o.Prefix, id), n, o.TTL)
		return "PUT", "/v1/agent/service/register", body
	case "deregister":
		return "PUT", fmt.Sprintf("/v1/agent/service/deregister/%s-%d", o.Prefix, id), ""
	case "query":
		return "GET", fmt.Sprintf("/v1/health/service/%s-%d?passing=1", o.Prefix, n%o.Services), ""
	}
	fail("unknown kind of offer:", o.Kind)
	return
}

// scattered takes the numbers below `among` in turn, neighbours far from each other.
func scattered(n, among int64) int64 {
	high, low := bits.Mul64(uint64(n), 7_919_000_017)
	_, rest := bits.Div64(high%uint64(among), low, uint64(among))
	return int64(rest)
}

func instanceOf(service, id string, port int64, ttl string) string {
	return fmt.Sprintf(`{"Name":"%s","ID":"%s","Address":"10.0.0.1","Port":%d,"Tags":["a"],`+
		`"Checks":[{"type":"ttl","ttl":"%s","status":"passing"}]}`, service, id, 1+port%60_000, ttl)
}

// fill registers instances in batches, over several connections.
func fill(prefix string, from, to, services int64, ttl string) {
	var next atomic.Int64
	next.Store(from)
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			c := connect(addressOf(worker))
			for {
				begin := next.Add(1000) - 1000
				if begin >= to {
					return
				}
				items := make([]string, 0, 1000)
				for id := begin; id < min(begin+1000, to); id++ {
					items = append(items, instanceOf(fmt.Sprintf("%s-%d", prefix, id%services), fmt.Sprintf("%s-%d", prefix, id), id, ttl))
				}
				must(c.do("PUT", "/v1/batch/register", "["+strings.Join(items, ",")+"]"))
			}
		})
	}
	group.Wait()
}

// Renewals of checks: when the last one that was acknowledged was sent, and the longest time without one.
type renewed struct {
	lock sync.Mutex
	last time.Time
	gap  time.Duration
}

func (r *renewed) note(sent, answered time.Time) {
	r.lock.Lock()
	defer r.lock.Unlock()
	if !r.last.IsZero() {
		r.gap = max(r.gap, answered.Sub(r.last))
	}
	r.last = sent
}

var (
	changes   sync.Map // Index of a write to the time at which it was due.
	renewals  []renewed
	streaming atomic.Bool
)

// offers runs all offers side by side: first everything is connected, filled and parked, then comes a time that is not
// measured, then the one that is.
func offers() {
	var all []*offer
	must(json.Unmarshal([]byte(*offered), &all))
	workers := make([][]*connection, len(all))
	for i, o := range all {
		workers[i] = make([]*connection, o.Workers)
		for worker := range workers[i] {
			workers[i][worker] = connect(addressOf(worker))
		}
	}
	if *number > 0 && *filled {
		fill(*prefix, 0, int64(*number), *services, *ttl)
	}
	renewals = make([]renewed, *number)
	begun := time.Now().Add(100 * time.Millisecond)
	measured := begun.Add(*warm)
	until := measured.Add(*duration)
	streaming.Store(true)
	var group sync.WaitGroup
	tallies := make([]tally, len(all))
	for i, o := range all {
		group.Go(func() { tallies[i] = o.run(workers[i], begun, measured, until) })
	}
	// What comes later than at once has a delay of more than this.
	time.Sleep(time.Until(begun.Add(min(*warm, 3500*time.Millisecond))))
	parked := resident()
	time.Sleep(time.Until(until))
	streaming.Store(false)
	group.Wait()
	figures := map[string]any{}
	for i, o := range all {
		figures[o.Name] = tallies[i].figures(o)
	}
	var longest time.Duration
	beyond, allowed := 0, ttlDuration()
	for i := range renewals {
		longest = max(longest, renewals[i].gap)
		if renewals[i].gap >= allowed {
			beyond++
		}
	}
	figures["parked_mb"] = float64(parked) / 1e6
	figures["longest_gap_ms"] = milliseconds(longest)
	figures["checks_beyond_ttl"] = beyond
	report(figures)
}

func ttlDuration() time.Duration {
	allowed, err := time.ParseDuration(*ttl)
	must(err)
	return allowed
}

func (o *offer) run(connections []*connection, begun, measured, until time.Time) tally {
	all := newTally()
	var lock sync.Mutex
	var group sync.WaitGroup
	var sequence atomic.Int64
	begun = begun.Add(time.Duration(o.Delay * float64(time.Second)))
	for worker, c := range connections {
		group.Go(func() {
			mine := newTally()
			if o.Kind == "poll" {
				mine.poll(o, int64(worker), c, measured, until)
			} else {
				mine.work(o, c, &sequence, begun, measured, until)
			}
			lock.Lock()
			defer lock.Unlock()
			all.add(&mine)
		})
	}
	group.Wait()
	return all
}

func (t *tally) work(o *offer, c *connection, sequence *atomic.Int64, begun, measured, until time.Time) {
	for {
		n := sequence.Add(1) - 1
		due := begun.Add(time.Duration(float64(n) / o.Rate * float64(time.Second)))
		if !due.Before(until) {
			return
		}
		time.Sleep(time.Until(due))
		counts := !due.Before(measured)
		sent := time.Now()
		if o.Patience > 0 && sent.Sub(due).Seconds() > o.Patience {
			if counts {
				t.abandoned++
			}
			continue
		}
		got, err := c.send(o.request(n))
		answered := time.Now()
		if err != nil {
			t.problem = err.Error()
			c.socket.Close()
			*c = *connect(c.host)
		}
		if got.status == 200 && err == nil && o.Kind == "renew" && o.Prefix == *prefix {
			renewals[n%o.Number].note(sent, answered)
		}
		if got.status == 200 && (o.Kind == "register" || o.Kind == "deregister") {
			changes.Store(got.index, due)
		}
		second := int64(answered.Sub(measured).Seconds())
		within := !answered.Before(measured) && answered.Before(until)
		if within && got.status == 200 {
			t.done[second]++
		} else if within && got.status != 0 {
			t.declined[second]++
		}
		if !counts {
			continue
		}
		t.statuses[got.status]++
		t.late = append(t.late, sent.Sub(due))
		switch got.status {
		case 200:
			t.accepted = append(t.accepted, answered.Sub(due))
			t.sent = append(t.sent, answered.Sub(sent))
		case 429, 503:
			t.refused = append(t.refused, answered.Sub(due))
			t.refusedSent = append(t.refusedSent, answered.Sub(sent))
		default:
			t.problem = fmt.Sprintf("status %d: %.100s", got.status, got.content)
		}
	}
}

// poll asks for a service's health, again and again, each time for what is newer than the last answer.
func (t *tally) poll(o *offer, worker int64, c *connection, measured, until time.Time) {
	index := int64(0)
	// Not all at the same moment.
	time.Sleep(time.Duration(worker) * 200 * time.Microsecond)
	for streaming.Load() {
		path := fmt.Sprintf("/v1/health/service/%s-%d?wait=300s&index=%d", o.Prefix, worker%o.Services, index)
		must(c.socket.SetReadDeadline(until.Add(200 * time.Millisecond)))
		got, err := c.send("GET", path, "")
		at := time.Now()
		if failure := net.Error(nil); errors.As(err, &failure) && failure.Timeout() {
			return
		}
		if err != nil || got.status != 200 {
			t.problem = fmt.Sprintf("a poll ended: status %d, %v", got.status, err)
			return
		}
		if index > 0 && at.After(measured) {
			t.polls = append(t.polls, wake{got.index, at})
		}
		index = got.index
	}
}

func (t *tally) add(o *tally) {
	t.accepted = append(t.accepted, o.accepted...)
	t.sent = append(t.sent, o.sent...)
	t.refused = append(t.refused, o.refused...)
	t.refusedSent = append(t.refusedSent, o.refusedSent...)
	t.late = append(t.late, o.late...)
	t.polls = append(t.polls, o.polls...)
	t.abandoned += o.abandoned
	for status, count := range o.statuses {
		t.statuses[status] += count
	}
	for second := range int64(duration.Seconds()) {
		t.done[second] += o.done[second]
		t.declined[second] += o.declined[second]
	}
	if o.problem != "" {
		t.problem = o.problem
	}
}

func (t *tally) figures(o *offer) map[string]any {
	figures := map[string]any{"problem": t.problem}
	if o.Kind == "poll" {
		var latencies []time.Duration
		for _, wake := range t.polls {
			if due, known := changes.Load(wake.index); known {
				latencies = append(latencies, wake.at.Sub(due.(time.Time)))
			}
		}
		figures["wakes"], figures["unknown"] = len(t.polls), len(t.polls)-len(latencies)
		quantiles(figures, "", latencies)
		return figures
	}
	statuses := map[string]int64{}
	for status, count := range t.statuses {
		statuses[strconv.Itoa(status)] = count
	}
	least, done, declined := t.done[0], int64(0), int64(0)
	for second := range int64(duration.Seconds()) {
		least = min(least, t.done[second])
		done += t.done[second]
		declined += t.declined[second]
	}
	figures["offered_rate"] = o.Rate
	figures["sent_rate"] = float64(len(t.late)) / duration.Seconds()
	figures["rate"] = float64(done) / duration.Seconds()
	figures["least_second"] = least
	figures["refused_rate"] = float64(declined) / duration.Seconds()
	figures["abandoned"], figures["statuses"] = t.abandoned, statuses
	quantiles(figures, "", t.accepted)
	quantiles(figures, "sent_", t.sent)
	quantiles(figures, "refused_", t.refused)
	quantiles(figures, "refused_sent_", t.refusedSent)
	quantiles(figures, "late_", t.late)
	return figures
}

func quantiles(figures map[string]any, name string, latencies []time.Duration) {
	if len(latencies) == 0 {
		return
	}
	sort.Slice(latencies, func(a, b int) bool { return latencies[a] < latencies[b] })
	for label, share := range map[string]float64{"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1} {
		figures[name+label] = milliseconds(latencies[int(share*float64(len(latencies)-1))])
	}
}

// expire renews all checks once more, in batches, and gives the time until the last of them is critical beyond its TTL.
func expire() {
	c := connect(addressOf(0))
	begun := time.Now()
	check := func(id int64) string { return fmt.Sprintf(`"chk:%s-%d:0"`, *prefix, id) }
	for begin := int64(0); begin < int64(*number); begin += 10_000 {
		ids := make([]string, 0, 10_000)
		for id := begin; id < min(begin+10_000, int64(*number)); id++ {
			ids = append(ids, check(id))
		}
		must(c.do("PUT", "/v1/batch/renew", "["+strings.Join(ids, ",")+"]"))
	}
	rate := float64(*number) / time.Since(begun).Seconds()
	due := time.Now().Add(ttlDuration())
	processor := processing()
	time.Sleep(time.Until(due))
	// A new connection: the server closes one that was idle for a minute.
	c = connect(addressOf(0))
	for passing(c) {
		if time.Since(due) > 2*time.Minute {
			fail("there are checks that do not expire")
		}
		time.Sleep(20 * time.Millisecond)
	}
	report(map[string]any{"late_ms": milliseconds(time.Since(due)), "renewed_rate": rate,
		"processor_us": float64(processing()-processor) / 1000 / float64(*number)})
}

// passing looks whether an instance passes, service by service until one has some.
func passing(c *connection) bool {
	for service := range *services {
		got, err := c.ask("GET", fmt.Sprintf("/v1/health/service/%s-%d?passing=1&stale", *prefix, service), "")
		must(err)
		if got.length > 4 {
			return true
		}
	}
	return false
}

// Each address of this machine has ports for so many connections to one server.
const portsPerAddress = 20_000

var connected atomic.Int64

func dialer() net.Dialer {
	address := connected.Add(1) / portsPerAddress
	if address == 0 {
		return net.Dialer{}
	}
	return net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+address))}}
}
