package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

type httpTarget struct{}

// A connection that requests are written to by hand: the generator shares the processors with the server.
type connection struct {
	socket net.Conn
	reader *bufio.Reader
	host   string
}

func connect(address string) *connection {
	dialer := dialer()
	socket, err := dialer.Dial("tcp", address)
	must(err)
	return &connection{socket, bufio.NewReaderSize(socket, 4096), address}
}

// send gives the body of the answer if `keep`, and its index.
func (c *connection) send(method, path, body string, keep bool) ([]byte, string, error) {
	length := ""
	if body != "" || method != "GET" {
		length = fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	_, err := fmt.Fprintf(c.socket, "%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n%s", method, path, c.host, length, body)
	if err != nil {
		return nil, "", err
	}
	answer, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return nil, "", err
	}
	defer answer.Body.Close()
	var content []byte
	if keep || answer.StatusCode != 200 {
		content, err = io.ReadAll(answer.Body)
	} else {
		_, err = io.Copy(io.Discard, answer.Body)
	}
	if err == nil && answer.StatusCode != 200 {
		err = fmt.Errorf("status %d: %.100s", answer.StatusCode, content)
	}
	return content, answer.Header.Get("X-Index"), err
}

func (c *connection) do(method, path, body string) error {
	_, _, err := c.send(method, path, body, false)
	return err
}

func instance(service, id string, port int64) string { return instanceOf(service, id, port, "600s") }

func (httpTarget) register(worker int) operation {
	c := connect(addressOf(worker))
	return func(n int64) error {
		if *ring > 0 {
			// Those that `fill` registered. The port differs each time: else nothing would change.
			id := scattered(n, *ring)
			body := instanceOf(fmt.Sprintf("%s-%d", *prefix, id%*services), fmt.Sprintf("%s-%d", *prefix, id), n, *ttl)
			return c.do("PUT", "/v1/agent/service/register", body)
		}
		body := instance(serviceOf(n), fmt.Sprintf("%s-%d", *prefix, n), n)
		return c.do("PUT", "/v1/agent/service/register", body)
	}
}

// A registration has its check with it.
func (t httpTarget) lease(worker int) operation { return t.register(worker) }

// prepare registers what is queried and renewed, once.
var prepare = sync.OnceFunc(func() {
	c := connect(addressOf(0))
	for n := range *number {
		must(c.do("PUT", "/v1/agent/service/register", instance("prepared-"+*prefix, fmt.Sprintf("%s-%d", *prefix, n), int64(n))))
	}
})

func (httpTarget) query(worker int) operation {
	prepare()
	c := connect(addressOf(worker))
	path := fmt.Sprintf("/v1/health/service/prepared-%s?passing=1", *prefix)
	if *stale {
		path += "&stale"
	}
	until := time.Now().Add(5 * time.Second)
	for {
		var found []any
		body, _, err := c.send("GET", path, "", true)
		must(err)
		must(json.Unmarshal(body, &found))
		if len(found) == *number {
			break
		}
		if time.Now().After(until) {
			fail("not all instances are found:", len(found))
		}
	}
	return func(int64) error { return c.do("GET", path, "") }
}

func (httpTarget) renew(worker int) operation {
	prepare()
	c := connect(addressOf(worker))
	check := func(n int64) string { return fmt.Sprintf("chk:%s-%d:0", *prefix, n%int64(*number)) }
	if *batch == 1 {
		return func(n int64) error { return c.do("PUT", "/v1/agent/check/pass/"+check(n), "") }
	}
	return func(n int64) error {
		ids := make([]string, *batch)
		for i := range ids {
			ids[i] = `"` + check(n*int64(*batch)+int64(i)) + `"`
		}
		return c.do("PUT", "/v1/batch/renew", "["+strings.Join(ids, ",")+"]")
	}
}

func (httpTarget) watch() func(int) (time.Duration, time.Duration) {
	writer := connect(addressOf(0))
	register := func(round int) {
		must(writer.do("PUT", "/v1/agent/service/register", instance("watched", fmt.Sprintf("w-%d", round), 1)))
	}
	register(0)
	path := "/v1/health/service/watched"
	connections := make([]*connection, *number)
	for i := range connections {
		connections[i] = connect(addressOf(i))
	}
	woken := make(chan time.Time, *number)
	park := func() {
		_, index, err := writer.send("GET", path, "", false)
		must(err)
		for _, c := range connections {
			go func() {
				must(c.do("GET", path+"?wait=300s&index="+index, ""))
				woken <- time.Now()
			}()
		}
	}
	park()
	return func(round int) (time.Duration, time.Duration) {
		if round > 1 {
			park()
			time.Sleep(settling())
		}
		return wakes(func() { register(round) }, woken)
	}
}

// wakes writes, and waits for all watchers.
func wakes(write func(), woken <-chan time.Time) (first, last time.Duration) {
	beforeWrite = processing()
	begun := time.Now()
	write()
	for range *number {
		select {
		case at := <-woken:
			took := at.Sub(begun)
			if first == 0 || took < first {
				first = took
			}
			last = max(last, took)
		case <-time.After(20 * time.Second):
			fail("a watcher was not woken")
		}
	}
	return first, last
}
