module timerheap/perf/go

go 1.27
