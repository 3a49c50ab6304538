// What the thread sanitizer can't know in race_test.

// An exception's memory is counted by libstdc++, which isn't instrumented: when several threads hold one, the
// last to let go seems to free what another has just read.
extern "C" const char* __tsan_default_suppressions() {
  return "race:std::__exception_ptr::exception_ptr::_M_release\n";
}
