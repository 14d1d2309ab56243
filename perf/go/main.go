// Go's own timers on the work of bench_timers.py, arrays.py, lateness.py and footprint.py.
//
// A worker for peers.py: reads one command a line from standard input, answers with one line. Times are taken here, around
// a plain Go loop, so nothing of the pipe is in them.
//
//	populate N              arm N timers, handles held, random deadlines an hour away  -> 0
//	OPERATION COUNT         the operation COUNT times on top of them                   -> seconds
//	late SCENARIO SECONDS   lateness of single timers                                  -> JSON, ns
//	memory N HELD           arm N timers in this process                               -> resident bytes more
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const batch = 100_000 // handles walked in one go, as in bench_timers.py

var (
	random  = rand.New(rand.NewSource(1))
	pending []*time.Timer
	delays  []time.Duration // of pending, in the order of pending
	order   []int           // pending in the order in which the walks go through it
	next    int             // where in order the next walk begins
)

func nothing() {}

func far() time.Duration {
	return 3600*time.Second + time.Duration(random.Float64()*1e12)
}

func manyFar(count int) []time.Duration {
	list := make([]time.Duration, count)
	for i := range list {
		list[i] = far()
	}
	return list
}

func populate(count int) {
	delays = manyFar(count)
	pending = make([]*time.Timer, count)
	for i, d := range delays {
		pending[i] = time.AfterFunc(d, nothing)
	}
	order = random.Perm(count)
}

func stopAll(handles []*time.Timer) {
	for _, t := range handles {
		t.Stop()
	}
}

// walk gives f successive parts of the shuffled population, count handles in all, and undoes each part's stops
// and resets outside the time that it returns.
func walk(count int, f func(part []*time.Timer, delays []time.Duration) time.Duration) time.Duration {
	var spent time.Duration
	for count > 0 {
		n := min(count, batch, len(order)-next)
		part, fresh := make([]*time.Timer, n), manyFar(n)
		for i, at := range order[next : next+n] {
			part[i] = pending[at]
		}
		spent += f(part, fresh)
		for _, at := range order[next : next+n] {
			pending[at].Reset(delays[at])
		}
		next = (next + n) % len(order)
		count -= n
	}
	return spent
}

// inOrder makes the walks go through the population from the given place of its deadline order on.
func inOrder(from float64) {
	order = make([]int, len(pending))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return int(delays[a] - delays[b]) })
	next = int(from * float64(len(order)))
}

func reset(count int, delay func(far time.Duration) time.Duration) time.Duration {
	return walk(count, func(part []*time.Timer, fresh []time.Duration) time.Duration {
		for i := range fresh {
			fresh[i] = delay(fresh[i])
		}
		start := time.Now()
		for i, t := range part {
			t.Reset(fresh[i])
		}
		return time.Since(start)
	})
}

func stop(count int) time.Duration {
	return walk(count, func(part []*time.Timer, _ []time.Duration) time.Duration {
		start := time.Now()
		for _, t := range part {
			t.Stop()
		}
		return time.Since(start)
	})
}

// arm takes the time of arming count timers, a batch at a time; create arms one.
func arm[T any](count int, delay func(far time.Duration) time.Duration, create func(time.Duration) T, undo func(T)) time.Duration {
	var spent time.Duration
	for count > 0 {
		n := min(count, batch)
		fresh := manyFar(n)
		for i := range fresh {
			fresh[i] = delay(fresh[i])
		}
		handles := make([]T, n)
		start := time.Now()
		for i, d := range fresh {
			handles[i] = create(d)
		}
		spent += time.Since(start)
		for _, h := range handles {
			undo(h)
		}
		count -= n
	}
	return spent
}

func same(d time.Duration) time.Duration    { return d }
func earlier(d time.Duration) time.Duration { return d - 1800*time.Second }
func later(d time.Duration) time.Duration   { return d + 1800*time.Second }

func afterFunc(d time.Duration) *time.Timer { return time.AfterFunc(d, nothing) }
func stopOne(t *time.Timer)                 { t.Stop() }

// fire arms count timers for one instant, or spread over some seconds behind it, and takes the time from that instant
// (spread: the processor time) until the last callback has run.
func fire(count int, spread time.Duration) time.Duration {
	due := time.Now().Add(200*time.Millisecond + time.Duration(count)*1500)
	var left atomic.Int64
	left.Store(int64(count))
	done := make(chan time.Time)
	callback := func() {
		if left.Add(-1) == 0 {
			done <- time.Now()
		}
	}
	handles := make([]*time.Timer, count)
	for i := range handles {
		at := due
		if spread > 0 {
			at = at.Add(time.Duration(random.Int63n(int64(spread))))
		}
		handles[i] = time.AfterFunc(time.Until(at), callback)
	}
	if time.Now().After(due) {
		panic("armed too slowly for the lead")
	}
	used := processorTime()
	end := <-done
	runtime.KeepAlive(handles)
	if spread > 0 {
		return processorTime() - used
	}
	return end.Sub(due)
}

func timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

func times(count int, f func()) time.Duration {
	return timed(func() {
		for range count {
			f()
		}
	})
}

func chain(links int) {
	done := make(chan bool)
	var link func()
	left := links
	link = func() {
		if left--; left == 0 {
			done <- true
			return
		}
		time.AfterFunc(0, link)
	}
	time.AfterFunc(0, link)
	<-done
}

func simultaneous(count int) {
	var all sync.WaitGroup
	all.Add(count)
	for range count {
		time.AfterFunc(0, all.Done)
	}
	all.Wait()
}

// all is the work of arrays.py: count timers, armed from nothing, or gone through once in a random order.
func all(operation string, count int) time.Duration {
	fresh := manyFar(count)
	handles := make([]*time.Timer, count)
	arming := timed(func() {
		for i, d := range fresh {
			handles[i] = time.AfterFunc(d, nothing)
		}
	})
	if operation == "all_arm" {
		return arming
	}
	random.Shuffle(count, func(i, j int) { handles[i], handles[j] = handles[j], handles[i] })
	if operation == "all_stop" {
		return timed(func() { stopAll(handles) })
	}
	fresh = manyFar(count)
	if operation == "all_reset_later" {
		for i := range fresh {
			fresh[i] = later(fresh[i])
		}
	}
	return timed(func() {
		for i, t := range handles {
			t.Reset(fresh[i])
		}
	})
}

func startStop(count int) {
	handles := make([]*time.Timer, count)
	for i := range handles {
		handles[i] = time.AfterFunc(time.Hour, nothing)
	}
	stopAll(handles)
}

func adjust(count int) {
	handles := make([]*time.Timer, count)
	for i := range handles {
		handles[i] = time.AfterFunc(time.Hour, nothing)
	}
	handles[count-1].Reset(time.Nanosecond)
	time.Sleep(time.Microsecond)
	stopAll(handles)
}

func selectAmong(count int) time.Duration {
	idle := make([]*time.Timer, 64)
	for i := range idle {
		idle[i] = time.NewTimer(time.Hour)
	}
	defer stopAll(idle)
	return times(count, func() {
		select {
		case <-time.After(0):
		case <-idle[0].C:
		}
	})
}

func armTwice(count int) time.Duration {
	var all sync.WaitGroup
	lists := [2][]*time.Timer{}
	fresh := [2][]time.Duration{manyFar(count / 2), manyFar(count / 2)}
	start := time.Now()
	for side := range 2 {
		lists[side] = make([]*time.Timer, count/2)
		all.Go(func() {
			for i, d := range fresh[side] {
				lists[side][i] = time.AfterFunc(d, nothing)
			}
		})
	}
	all.Wait()
	spent := time.Since(start)
	stopAll(lists[0])
	stopAll(lists[1])
	return spent
}

func measure(operation string, count int) time.Duration {
	switch operation {
	case "arm":
		return arm(count, same, afterFunc, stopOne)
	case "arm_first":
		return arm(count, earlier, afterFunc, stopOne)
	case "arm_last":
		return arm(count, later, afterFunc, stopOne)
	case "arm_channel":
		return arm(count, same, time.NewTimer, stopOne)
	case "arm_threads":
		return armTwice(count)
	case "arm_stop":
		fresh := manyFar(count)
		return timed(func() {
			for _, d := range fresh {
				time.AfterFunc(d, nothing).Stop()
			}
		})
	case "stop":
		return stop(count)
	case "stop_front", "stop_middle", "stop_back":
		inOrder(map[string]float64{"stop_front": 0, "stop_middle": 0.45, "stop_back": 0.9}[operation])
		return stop(count)
	case "reset":
		return reset(count, same)
	case "reset_earlier":
		return reset(count, earlier)
	case "reset_later":
		return reset(count, later)
	case "fire", "fire_dropped":
		return fire(count, 0)
	case "fire_spread":
		return fire(count, 2*time.Second)
	case "fire_second":
		return fire(count, time.Second)
	case "all_arm", "all_reset", "all_reset_later", "all_stop":
		return all(operation, count)
	case "round_trip":
		t := time.NewTimer(time.Hour)
		return times(count, func() { t.Reset(0); <-t.C })
	case "after_recv":
		return times(count, func() { <-time.After(0) })
	case "ticker":
		t := time.NewTicker(1)
		defer t.Stop()
		return times(count, func() { <-t.C })
	case "ticker_reset":
		t := time.NewTicker(1)
		defer t.Stop()
		return times(count, func() { t.Reset(2) })
	case "ticker_reset_naive":
		t := time.NewTicker(1)
		spent := times(count, func() { t.Stop(); t = time.NewTicker(2) })
		t.Stop()
		return spent
	case "select_2":
		return selectAmong(count)
	case "sleep_1us":
		return times(count, func() { time.Sleep(time.Microsecond) })
	case "chain":
		return timed(func() { chain(count) })
	case "simultaneous":
		return timed(func() { simultaneous(count) })
	case "start_stop":
		return timed(func() { startStop(count) })
	case "adjust":
		return timed(func() { adjust(count) })
	}
	panic("no such operation: " + operation)
}

// late measures by how much timers of a scenario of lateness.py are late.
func late(scenario string, seconds float64) []int64 {
	var lock sync.Mutex
	found := []int64{}
	note := func(due time.Time) {
		by := time.Since(due).Nanoseconds()
		lock.Lock()
		found = append(found, by)
		lock.Unlock()
	}
	span := time.Duration(seconds * 1e9)
	end := time.Now().Add(span)
	switch scenario {
	case "computing", "computing, main":
		go func() {
			for time.Now().Before(end) {
			}
		}()
	case "burst":
		at := end.Add(-span / 2)
		for range 1_000_000 {
			time.AfterFunc(time.Until(at), nothing)
		}
	case "ticker":
		grid := time.Now() // a little before the ticker's own start: nothing looks early
		ticker := time.NewTicker(5 * time.Millisecond)
		for at := range ticker.C {
			due := grid.Add(at.Sub(grid).Truncate(5 * time.Millisecond))
			note(due)
			if at.After(end) {
				return found
			}
		}
	case "many":
		var all sync.WaitGroup
		for range int(10_000 * seconds) {
			all.Add(1)
			due := time.Now().Add(time.Duration(100e6 + random.Float64()*seconds*1e9))
			time.AfterFunc(time.Until(due), func() { note(due); all.Done() })
		}
		all.Wait()
		return found
	}
	for time.Now().Before(end) {
		done := make(chan bool)
		due := time.Now().Add(time.Duration(1e6 + random.Float64()*9e6))
		time.AfterFunc(time.Until(due), func() { note(due); done <- true })
		<-done
	}
	return found
}

func memory(count int, held bool) int {
	handles := make([]*time.Timer, 0)
	if held {
		handles = make([]*time.Timer, count)
		for i := range handles {
			handles[i] = nil // resident before the account begins
		}
	}
	time.AfterFunc(time.Hour, nothing)
	debug.FreeOSMemory()
	before := resident()
	for i := range count {
		t := time.AfterFunc(time.Hour+time.Duration(i)*time.Second, nothing)
		if held {
			handles[i] = t
		}
	}
	debug.FreeOSMemory()
	after := resident()
	runtime.KeepAlive(handles)
	return after - before
}

func resident() int {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		panic(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		panic(err)
	}
	return pages * os.Getpagesize()
}

// allocations gives bytes and allocations of one operation, as go test -benchmem counts them.
func allocations(operation string) [2]float64 {
	var before, after runtime.MemStats
	const count = 10_000
	measure(operation, count)
	runtime.ReadMemStats(&before)
	measure(operation, count)
	runtime.ReadMemStats(&after)
	return [2]float64{float64(after.TotalAlloc-before.TotalAlloc) / count, float64(after.Mallocs-before.Mallocs) / count}
}

func main() {
	answers := json.NewEncoder(os.Stdout)
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		words := strings.Fields(commands.Text())
		number, err := strconv.ParseFloat(words[len(words)-1], 64)
		var answer any
		switch words[0] {
		case "version":
			answer = runtime.Version()
		case "populate":
			populate(int(number))
		case "late":
			answer = late(words[1], number)
		case "memory":
			answer = memory(int(number), words[1] == "held")
		case "allocations":
			answer = allocations(words[1])
		default:
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(2)
			}
			answer = measure(words[0], int(number)).Seconds()
		}
		if err := answers.Encode(answer); err != nil {
			os.Exit(1)
		}
	}
}
