#include "jinja/value.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/keyed_hash.h"
#include "base/utf8.h"
#include "jinja/python_text.h"

namespace steelyard::jinja {

namespace {

constexpr std::size_t kIndexBeyond = 8;

void check_depth(int depth) {
  if (depth > kMaxValueDepth) fail("a value is nested too deeply");
}

const RangeObject& range_of(const Value& value) { return *static_cast<const RangeObject*>(value.object()); }
const ViewObject& view_of(const Value& value) { return *static_cast<const ViewObject*>(value.object()); }
IteratorObject& iterator_of(const Value& value) { return *static_cast<IteratorObject*>(value.object()); }

// Strings of one ASCII character, made once.
const std::array<std::unique_ptr<StringObject>, 128>& ascii_letters() {
  static const auto letters = [] {
    std::array<std::unique_ptr<StringObject>, 128> made;
    for (std::size_t i = 0; i < made.size(); ++i)
      made[i] = std::make_unique<StringObject>(std::string(1, static_cast<char>(i)));
    return made;
  }();
  return letters;
}

const KeyedHash& keyed() {
  static const KeyedHash hash;
  return hash;
}

std::size_t mix(std::size_t a, std::size_t b) { return keyed()(a * 31 ^ keyed()(b)); }

int order(double a, double b) { return a < b ? -1 : a > b ? 1 : a == b ? 0 : 2; }
int order(std::int64_t a, std::int64_t b) { return a < b ? -1 : a > b ? 1 : 0; }

}  // namespace

StringObject::StringObject(std::string_view view) : text(view), chars(count_chars(view)) {}
StringObject::StringObject(std::string&& bytes)
    : owned(std::move(bytes)), text(owned), chars(count_chars(owned)) {}

std::size_t DictObject::place(Heap& heap, const Value& key) const {
  if (items.size() <= kIndexBeyond) {
    for (std::size_t i = 0; i < items.size(); ++i)
      if (equals(heap, items[i].first, key)) return i;
    return items.size();
  }
  auto [begin, end] = index_.equal_range(hash_of(heap, key));
  for (auto at = begin; at != end; ++at)
    if (equals(heap, items[at->second].first, key)) return at->second;
  return items.size();
}

const Value* DictObject::find(Heap& heap, const Value& key) const {
  std::size_t at = place(heap, key);
  return at == items.size() ? nullptr : &items[at].second;
}

const Value* DictObject::find(Heap& heap, std::string_view key) const {
  heap.copy_bytes(key.size());
  if (items.size() <= kIndexBeyond) {
    for (const auto& [name, value] : items)
      if (name.is(Kind::string) && name.text() == key) return &value;
    return nullptr;
  }
  StringObject wanted(key);
  return find(heap, Value(Kind::string, &wanted));
}

void DictObject::set(Heap& heap, const Value& key, const Value& value) {
  std::size_t at = place(heap, key);
  if (at < items.size()) {
    items[at].second = value;
    return;
  }
  items.emplace_back(key, value);
  if (items.size() == kIndexBeyond + 1) {
    for (std::size_t i = 0; i < items.size(); ++i) index_.emplace(hash_of(heap, items[i].first), i);
  } else if (items.size() > kIndexBeyond) {
    index_.emplace(hash_of(heap, key), at);
  }
}

std::int64_t RangeObject::size() const {
  if (step > 0 ? start >= stop : start <= stop) return 0;
  std::uint64_t span = step > 0 ? static_cast<std::uint64_t>(stop) - static_cast<std::uint64_t>(start)
                                : static_cast<std::uint64_t>(start) - static_cast<std::uint64_t>(stop);
  std::uint64_t width = step > 0 ? static_cast<std::uint64_t>(step) : 0 - static_cast<std::uint64_t>(step);
  return static_cast<std::int64_t>((span - 1) / width + 1);
}

Value Heap::string(std::string text, bool markup) {
  charge(text.size());
  auto* object = make<StringObject>(std::move(text));
  object->markup = markup;
  return Value(Kind::string, object);
}

Value Heap::view(std::string_view text) {
  read_bytes(text.size());  // its characters are counted
  return Value(Kind::string, make<StringObject>(text));
}

Value Heap::character(std::string_view letter) {
  if (letter.size() == 1 && static_cast<std::uint8_t>(letter[0]) < 0x80)
    return Value(Kind::string, ascii_letters()[static_cast<std::uint8_t>(letter[0])].get());
  return string(std::string(letter));
}

Value Heap::list(std::vector<Value> items, Kind kind) {
  charge(items.size() * sizeof(Value));
  auto* object = make<SequenceObject>();
  object->items = std::move(items);
  return Value(kind, object);
}

Value Heap::iterator(std::vector<Value> items, const char* python_name) {
  charge(items.size() * sizeof(Value));
  auto* object = make<IteratorObject>();
  object->items = std::move(items);
  object->python_name = python_name;
  return Value(Kind::iterator, object);
}

Value Heap::undefined(std::string message) {
  charge(message.size());
  auto* object = make<UndefinedObject>();
  object->message = std::move(message);
  return Value(Kind::undefined, object);
}

void Heap::watch() {
  unwatched_ = 0;
  if (stop_.stop_requested()) throw Failure{.message = "the template was stopped", .cancelled = true};
  if (std::chrono::steady_clock::now() > deadline_) fail("the template takes too long");
}

bool is_iterable(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined:
    case Kind::string:
    case Kind::list:
    case Kind::tuple:
    case Kind::dict:
    case Kind::range:
    case Kind::view:
    case Kind::iterator:
      return true;
    default:
      return false;
  }
}

Cursor::Cursor(Heap& heap, const Value& value) : heap_(&heap), source_(value) {
  if (!is_iterable(value)) fail("'{}' object is not iterable", type_name(value));
}

bool Cursor::next(Value& out) {
  heap_->step();
  ++taken_;
  switch (source_.kind()) {
    case Kind::string: {
      std::string_view text = source_.text();
      if (index_ >= text.size()) return false;
      std::size_t length = decode_utf8(text.substr(index_)).length;
      out = heap_->character(text.substr(index_, length));
      index_ += length;
      return true;
    }
    case Kind::list:
    case Kind::tuple:
      if (index_ >= source_.items().size()) return false;
      out = source_.items()[index_++];
      return true;
    case Kind::dict:
      if (index_ >= source_.dict().items.size()) return false;
      out = source_.dict().items[index_++].first;
      return true;
    case Kind::view: {
      const auto& items = view_of(source_).dict.dict().items;
      if (index_ >= items.size()) return false;
      const auto& [key, value] = items[index_++];
      auto part = view_of(source_).part;
      out = part == ViewObject::Part::keys     ? key
            : part == ViewObject::Part::values ? value
                                               : heap_->list({key, value}, Kind::tuple);
      return true;
    }
    case Kind::range: {
      const RangeObject& range = range_of(source_);
      if (static_cast<std::int64_t>(index_) >= range.size()) return false;
      out = Value::integer(range.at(static_cast<std::int64_t>(index_++)));
      return true;
    }
    case Kind::iterator: {
      IteratorObject& iterator = iterator_of(source_);
      if (iterator.next >= iterator.items.size()) return false;
      out = iterator.items[iterator.next++];
      return true;
    }
    default:
      return false;
  }
}

std::optional<std::size_t> Cursor::remaining() const {
  if (source_.is(Kind::iterator)) return std::nullopt;
  const std::size_t length = length_of(source_).value_or(0);
  return length - std::min(taken_, length);
}

std::vector<Value> to_vector(Heap& heap, const Value& value) {
  std::vector<Value> out;
  Cursor cursor(heap, value);
  for (Value item; cursor.next(item);) {
    heap.expect(out.size() * sizeof(Value));
    out.push_back(item);
  }
  return out;
}

std::optional<std::size_t> length_of(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined:
      return 0;
    case Kind::string:
      return value.string().chars;
    case Kind::list:
    case Kind::tuple:
      return value.items().size();
    case Kind::dict:
      return value.dict().items.size();
    case Kind::view:
      return view_of(value).dict.dict().items.size();
    case Kind::range:
      return static_cast<std::size_t>(range_of(value).size());
    default:
      return std::nullopt;
  }
}

bool truth(const Value& value) {
  switch (value.kind()) {
    case Kind::none:
      return false;
    case Kind::boolean:
    case Kind::integer:
      return value.integer() != 0;
    case Kind::real:
      return value.number() != 0;
    default:
      return length_of(value).value_or(1) != 0;
  }
}

bool equals(Heap& heap, const Value& a, const Value& b, int depth) {
  check_depth(depth);
  heap.step();
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
    return a.number() == b.number();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::undefined:
    case Kind::none:
      return true;
    case Kind::string:
      if (a.text().size() != b.text().size()) return false;
      heap.copy_bytes(a.text().size());
      return a.text() == b.text();
    case Kind::list:
    case Kind::tuple: {
      const auto &left = a.items(), &right = b.items();
      if (left.size() != right.size()) return false;
      for (std::size_t i = 0; i < left.size(); ++i)
        if (!equals(heap, left[i], right[i], depth + 1)) return false;
      return true;
    }
    case Kind::dict: {
      const DictObject &left = a.dict(), &right = b.dict();
      if (left.items.size() != right.items.size()) return false;
      for (const auto& [key, value] : left.items) {
        const Value* other = right.find(heap, key);
        if (other == nullptr || !equals(heap, value, *other, depth + 1)) return false;
      }
      return true;
    }
    case Kind::range: {
      const RangeObject &left = range_of(a), &right = range_of(b);
      std::int64_t size = left.size();
      return size == right.size() &&
             (size == 0 || (left.start == right.start && (size == 1 || left.step == right.step)));
    }
    default:
      return a.object() == b.object();
  }
}

int compare(Heap& heap, const Value& a, const Value& b, const char* sign, int depth) {
  check_depth(depth);
  heap.step();
  require_defined(a);
  require_defined(b);
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return order(a.integer(), b.integer());
    return order(a.number(), b.number());
  }
  if (a.is(Kind::string) && b.is(Kind::string)) {  // code point order is byte order
    heap.copy_bytes(std::min(a.text().size(), b.text().size()));
    int c = a.text().compare(b.text());
    return c < 0 ? -1 : c > 0;
  }
  if (a.kind() == b.kind() && (a.is(Kind::list) || a.is(Kind::tuple))) {
    const auto &left = a.items(), &right = b.items();
    for (std::size_t i = 0; i < left.size() && i < right.size(); ++i)
      if (!equals(heap, left[i], right[i], depth + 1))
        return compare(heap, left[i], right[i], sign, depth + 1);
    return order(static_cast<std::int64_t>(left.size()), static_cast<std::int64_t>(right.size()));
  }
  fail("'{}' not supported between instances of '{}' and '{}'", sign, type_name(a), type_name(b));
}

std::size_t hash_of(Heap& heap, const Value& value, int depth) {
  check_depth(depth);
  heap.step();
  switch (value.kind()) {
    case Kind::boolean:
    case Kind::integer:
      return mix(1, static_cast<std::size_t>(value.integer()));
    case Kind::real: {
      double number = value.number();
      if (number == std::floor(number) && std::fabs(number) < 9e18)
        return mix(1, static_cast<std::size_t>(static_cast<std::int64_t>(number)));
      std::size_t bits;
      std::memcpy(&bits, &number, sizeof bits);
      return mix(2, bits);
    }
    case Kind::string:
      heap.copy_bytes(value.text().size());
      return keyed()(value.text());
    case Kind::tuple: {
      std::size_t hash = 3;
      for (const Value& item : value.items()) hash = mix(hash, hash_of(heap, item, depth + 1));
      return hash;
    }
    case Kind::list:
    case Kind::dict:
    case Kind::view:
      fail("unhashable type: '{}'", type_name(value));
    case Kind::undefined:
    case Kind::none:
      return static_cast<std::size_t>(value.kind());
    default:
      return std::hash<Object*>()(value.object());
  }
}

const char* type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined:
      return "Undefined";
    case Kind::none:
      return "NoneType";
    case Kind::boolean:
      return "bool";
    case Kind::integer:
      return "int";
    case Kind::real:
      return "float";
    case Kind::string:
      return value.string().markup ? "Markup" : "str";
    case Kind::list:
      return "list";
    case Kind::tuple:
      return "tuple";
    case Kind::dict:
      return "dict";
    case Kind::range:
      return "range";
    case Kind::view: {
      auto part = view_of(value).part;
      return part == ViewObject::Part::keys     ? "dict_keys"
             : part == ViewObject::Part::values ? "dict_values"
                                                : "dict_items";
    }
    case Kind::iterator:
      return iterator_of(value).python_name;
    case Kind::function:
      return "function";
    case Kind::macro:
      return "Macro";
    case Kind::space:
      return "Namespace";
    case Kind::loop:
      return "LoopContext";
    case Kind::cycler:
      return "Cycler";
    case Kind::joiner:
      return "Joiner";
  }
  return "object";
}

void fail_undefined(const Value& value) {
  auto* object = static_cast<const UndefinedObject*>(value.object());
  fail("{}", object ? object->message : "a value is undefined");
}

}  // namespace steelyard::jinja
