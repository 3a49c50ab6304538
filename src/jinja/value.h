// Values of a template: Python's, as far as templates can see them. Objects belong to the Heap of one
// rendering (or to the compiled template, for literals) and are freed together with it, so cycles are
// harmless and copying is cheap.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace steelyard::jinja {

// What ends a compilation or a rendering. `exact`: the template's own words (raise_exception), shown as they
// are.
struct Failure {
  std::string message;
  int line = 0;  // 0: the one being rendered
  bool exact = false;
  bool cancelled = false;
};

// What a rendering may spend; see TemplateLimits.
struct Limits {
  std::size_t output_bytes, steps, memory_bytes;
  std::chrono::milliseconds time;
  std::stop_token stop;
};

template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Failure{fmt::format(format, std::forward<Args>(args)...)};
}

enum class Kind : std::uint8_t {
  undefined,
  none,
  boolean,
  integer,
  real,
  string,
  list,
  tuple,
  dict,
  range,
  view,      // dict.keys(), .values(), .items()
  iterator,  // what select(), map() … return: can be walked once
  function,
  macro,
  space,  // namespace()
  loop,
  cycler,
  joiner,
};

class Heap;
struct Object {
  virtual ~Object() = default;
};
struct StringObject;
struct SequenceObject;
struct DictObject;
struct RangeObject;
struct ViewObject;
struct IteratorObject;
struct FunctionObject;
struct MacroObject;
struct SpaceObject;
struct LoopObject;
struct UndefinedObject;

class Value {
 public:
  Value() : kind_(Kind::undefined), object_(nullptr) {}
  Value(Kind kind, Object* object) : kind_(kind), object_(object) {}
  static Value none() { return Value(Kind::none, nullptr); }
  static Value boolean(bool value) {
    Value v(Kind::boolean, nullptr);
    v.integer_ = value;
    return v;
  }
  static Value integer(std::int64_t value) {
    Value v(Kind::integer, nullptr);
    v.integer_ = value;
    return v;
  }
  static Value real(double value) {
    Value v(Kind::real, nullptr);
    v.real_ = value;
    return v;
  }

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_integral() const { return kind_ == Kind::integer || kind_ == Kind::boolean; }
  bool is_number() const { return is_integral() || kind_ == Kind::real; }

  std::int64_t integer() const { return integer_; }  // integer and boolean
  double number() const { return kind_ == Kind::real ? real_ : static_cast<double>(integer_); }
  Object* object() const { return object_; }
  std::string_view text() const;  // string
  const StringObject& string() const;
  const std::vector<Value>& items() const;  // list, tuple
  const DictObject& dict() const;

 private:
  Kind kind_;
  union {
    std::int64_t integer_;
    double real_;
    Object* object_;
  };
};

struct StringObject : Object {
  explicit StringObject(std::string_view view);  // bytes kept alive by someone else
  explicit StringObject(std::string&& bytes);
  StringObject(const StringObject&) = delete;
  StringObject& operator=(const StringObject&) = delete;

  std::string owned;
  std::string_view text;
  std::size_t chars;
  bool markup = false;  // what |safe and |escape return
  bool ascii() const { return chars == text.size(); }
};

struct SequenceObject : Object {
  std::vector<Value> items;
  bool group = false;  // a (grouper, list) pair of groupby
};

// Ordered by insertion, keys unique by Python's equality. An index is kept beyond a few entries.
struct DictObject : Object {
  std::vector<std::pair<Value, Value>> items;
  const Value* find(Heap& heap, const Value& key) const;  // the key must be hashable
  const Value* find(Heap& heap, std::string_view key) const;
  void set(Heap& heap, const Value& key, const Value& value);

 private:
  std::size_t place(Heap& heap, const Value& key) const;  // items.size() when absent
  std::unordered_multimap<std::size_t, std::size_t> index_;
};

struct RangeObject : Object {
  std::int64_t start, stop, step;
  std::int64_t size() const;
  std::int64_t at(std::int64_t index) const { return start + index * step; }
};

struct ViewObject : Object {
  enum class Part { keys, values, items } part;
  Value dict;
};

struct IteratorObject : Object {
  std::vector<Value> items;
  std::size_t next = 0;
  const char* python_name = "generator";
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> named;
};

class Interpreter;
// Filters, methods and global functions alike: `self` is the value filtered or the owner of the method.
using Function = Value (*)(Interpreter&, const Value& self, Arguments&);

struct FunctionObject : Object {
  Function function;
  Value self;
  std::string name;
};

struct SpaceObject : Object {
  DictObject attributes;
};

struct UndefinedObject : Object {
  std::string message;  // what to say when it is used
};

struct CyclerObject : Object {
  std::vector<Value> items;
  std::size_t at = 0;
};

struct JoinerObject : Object {
  Value separator;
  bool used = false;
};

// Owns objects and counts what a rendering spends.
class Heap {
 public:
  explicit Heap(const Limits& limits)
      : steps_(limits.steps),
        memory_(limits.memory_bytes),
        stop_(limits.stop),
        deadline_(std::chrono::steady_clock::now() + limits.time) {}

  template <typename T, typename... Args>
  T* make(Args&&... args) {
    charge(sizeof(T) + 16);
    auto owned = std::make_unique<T>(std::forward<Args>(args)...);
    T* raw = owned.get();
    objects_.push_back(std::move(owned));
    return raw;
  }
  Value string(std::string text, bool markup = false);
  Value view(std::string_view text);         // bytes that outlive the rendering
  Value character(std::string_view letter);  // one character
  Value list(std::vector<Value> items, Kind kind = Kind::list);
  Value iterator(std::vector<Value> items, const char* python_name = "generator");
  Value undefined(std::string message);
  DictObject* new_dict() { return make<DictObject>(); }

  // These throw Failure beyond the limits. A step is some 50 ns of work; whatever grows with a value is
  // charged by what it touches, by one of the four below.
  void step(std::size_t count = 1) {
    if (count > steps_) fail("the template takes too many steps");
    steps_ -= count;
    unwatched_ += count;
    if (unwatched_ >= kWatchEvery) watch();
  }
  void copy_bytes(std::size_t bytes) { step(bytes / 64); }     // moved or compared as blocks
  void read_bytes(std::size_t bytes) { step(bytes / 16); }     // taken one by one
  void classify_bytes(std::size_t bytes) { step(bytes / 2); }  // each character looked up in Unicode's tables
  void take_items(std::size_t count) { step(count / 8); }      // of a list, copied or looked at
  void charge(std::size_t bytes) {
    if (bytes > memory_) fail("the template needs too much memory");
    memory_ -= bytes;
  }
  // Call before building something of `bytes`, so that nothing huge is built first.
  void expect(std::size_t bytes) const {
    if (bytes > memory_) fail("the template needs too much memory");
  }

 private:
  static constexpr std::size_t kWatchEvery = 1 << 14;
  // Throws Failure when the caller has asked to stop, or waited long enough.
  void watch();

  std::deque<std::unique_ptr<Object>> objects_;
  std::size_t steps_, memory_, unwatched_ = kWatchEvery;
  std::stop_token stop_;
  std::chrono::steady_clock::time_point deadline_;
};

// Walks the items of an iterable: list, tuple, dict (keys), string (characters), range, view, iterator.
class Cursor {
 public:
  // Throws Failure when `value` can't be iterated.
  Cursor(Heap& heap, const Value& value);
  bool next(Value& out);
  // Items left, when that is known without walking.
  std::optional<std::size_t> remaining() const;

 private:
  Heap* heap_;
  Value source_;
  std::size_t index_ = 0, taken_ = 0;
};

bool is_iterable(const Value& value);
std::vector<Value> to_vector(Heap& heap, const Value& value);
std::optional<std::size_t> length_of(const Value& value);  // nullopt where Python's len() raises

bool truth(const Value& value);
// These three charge each value they come to: one that holds another many times over is as large as it looks.
bool equals(Heap& heap, const Value& a, const Value& b, int depth = 0);
// < 0, 0, > 0; unordered numbers (NaN) give 2. Throws Failure for types Python can't order.
int compare(Heap& heap, const Value& a, const Value& b, const char* sign = "<", int depth = 0);
std::size_t hash_of(Heap& heap, const Value& value, int depth = 0);  // throws Failure for unhashable types
const char* type_name(const Value& value);
[[noreturn]] void fail_undefined(const Value& value);
// Throws Failure when `value` is undefined.
inline void require_defined(const Value& value) {
  if (value.is(Kind::undefined)) fail_undefined(value);
}

// str() and repr().
std::string to_text(Heap& heap, const Value& value);
void append_text(Heap& heap, std::string& out, const Value& value);
void append_repr(Heap& heap, std::string& out, const Value& value, int depth = 0);

inline constexpr int kMaxValueDepth = 200;  // nesting of lists and dicts that is followed

inline std::string_view Value::text() const { return static_cast<const StringObject*>(object_)->text; }
inline const StringObject& Value::string() const { return *static_cast<const StringObject*>(object_); }
inline const std::vector<Value>& Value::items() const {
  return static_cast<const SequenceObject*>(object_)->items;
}
inline const DictObject& Value::dict() const { return *static_cast<const DictObject*>(object_); }

}  // namespace steelyard::jinja
