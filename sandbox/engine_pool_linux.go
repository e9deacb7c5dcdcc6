//go:build cgo

package sandbox

// wasmtime's pooling allocator is part of the library that its Go package links, but not of the package's interface. The
// references are weak: with a library that has no such functions programs run as well, in memories that are mapped for each.

/*
#include <stddef.h>
#include <stdint.h>

#define WEAK __attribute__((weak))

typedef struct pool_config pool_config;
pool_config *wasmtime_pooling_allocation_config_new(void) WEAK;
void wasmtime_pooling_allocation_config_delete(pool_config *) WEAK;
void wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(pool_config *, size_t) WEAK;
void wasmtime_pooling_allocation_config_max_core_instance_size_set(pool_config *, size_t) WEAK;
void wasmtime_pooling_allocation_config_max_memory_size_set(pool_config *, size_t) WEAK;
void wasmtime_pooling_allocation_config_max_tables_per_module_set(pool_config *, uint32_t) WEAK;
void wasmtime_pooling_allocation_config_table_elements_set(pool_config *, size_t) WEAK;
void wasmtime_pooling_allocation_config_table_keep_resident_set(pool_config *, size_t) WEAK;
void wasmtime_pooling_allocation_config_total_core_instances_set(pool_config *, uint32_t) WEAK;
void wasmtime_pooling_allocation_config_total_gc_heaps_set(pool_config *, uint32_t) WEAK;
void wasmtime_pooling_allocation_config_total_memories_set(pool_config *, uint32_t) WEAK;
void wasmtime_pooling_allocation_config_total_stacks_set(pool_config *, uint32_t) WEAK;
void wasmtime_pooling_allocation_config_total_tables_set(pool_config *, uint32_t) WEAK;
void wasmtime_pooling_allocation_strategy_set(void *config, const pool_config *) WEAK;

static int use_pool(void *config, size_t resident, uint32_t tables, size_t elements) {
	if (!wasmtime_pooling_allocation_config_new || !wasmtime_pooling_allocation_config_delete ||
	    !wasmtime_pooling_allocation_config_linear_memory_keep_resident_set ||
	    !wasmtime_pooling_allocation_config_max_core_instance_size_set ||
	    !wasmtime_pooling_allocation_config_max_memory_size_set ||
	    !wasmtime_pooling_allocation_config_max_tables_per_module_set ||
	    !wasmtime_pooling_allocation_config_table_elements_set ||
	    !wasmtime_pooling_allocation_config_table_keep_resident_set ||
	    !wasmtime_pooling_allocation_config_total_core_instances_set ||
	    !wasmtime_pooling_allocation_config_total_gc_heaps_set ||
	    !wasmtime_pooling_allocation_config_total_memories_set ||
	    !wasmtime_pooling_allocation_config_total_stacks_set ||
	    !wasmtime_pooling_allocation_config_total_tables_set ||
	    !wasmtime_pooling_allocation_strategy_set)
		return 0;
	pool_config *p = wasmtime_pooling_allocation_config_new();
	wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(p, resident);
	wasmtime_pooling_allocation_config_max_core_instance_size_set(p, (size_t)1 << 30);
	wasmtime_pooling_allocation_config_max_memory_size_set(p, (size_t)4 << 30);
	wasmtime_pooling_allocation_config_max_tables_per_module_set(p, tables);
	wasmtime_pooling_allocation_config_table_elements_set(p, elements);
	wasmtime_pooling_allocation_config_table_keep_resident_set(p, resident);
	wasmtime_pooling_allocation_config_total_core_instances_set(p, 1);
	wasmtime_pooling_allocation_config_total_gc_heaps_set(p, 1);
	wasmtime_pooling_allocation_config_total_memories_set(p, 1);
	wasmtime_pooling_allocation_config_total_stacks_set(p, 1);
	wasmtime_pooling_allocation_config_total_tables_set(p, tables);
	wasmtime_pooling_allocation_strategy_set(config, p);
	wasmtime_pooling_allocation_config_delete(p);
	return 1;
}
*/
import "C"

import (
	"reflect"
	"runtime"
	"unsafe"

	"github.com/bytecodealliance/wasmtime-go/v44"
)

// residentMemory is how much of a program's memory, and of its tables, stays with the child for its next program, in bytes: to
// clear a page costs a tenth of having it mapped again, and the library clears all of it, used or not.
const residentMemory = 256 << 10

// poolMemory has all programs of an engine use one memory, one after another, and its tables, each as new: to map and unmap one for
// each costs a small program more than it does itself. It reports whether it is so; without, programs run as well.
func poolMemory(c *wasmtime.Config) bool {
	t := reflect.TypeFor[wasmtime.Config]()
	if t.NumField() != 1 || t.Field(0).Type.Kind() != reflect.Pointer {
		return false
	}
	ok := C.use_pool(*(*unsafe.Pointer)(unsafe.Pointer(c)), residentMemory, maxTables, maxTable)
	runtime.KeepAlive(c)
	return ok != 0
}
