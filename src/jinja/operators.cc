// Python's operators on values.
#include <algorithm>
#include <cmath>

#include "jinja/interpreter.h"
#include "jinja/methods.h"
#include "jinja/python_text.h"

namespace steelyard::jinja {

namespace {

[[noreturn]] void too_large() { fail("an integer needs more than 64 bits"); }

[[noreturn]] void wrong_types(const char* sign, const Value& a, const Value& b) {
  require_defined(a);
  require_defined(b);
  fail("unsupported operand type(s) for {}: '{}' and '{}'", sign, type_name(a), type_name(b));
}

bool both_integral(const Value& a, const Value& b) { return a.is_integral() && b.is_integral(); }
bool both_numbers(const Value& a, const Value& b) { return a.is_number() && b.is_number(); }
bool is_sequence(const Value& v) { return v.is(Kind::list) || v.is(Kind::tuple); }

Value add(Heap& heap, const Value& a, const Value& b) {
  if (both_integral(a, b)) {
    std::int64_t sum;
    if (__builtin_add_overflow(a.integer(), b.integer(), &sum)) too_large();
    return Value::integer(sum);
  }
  if (both_numbers(a, b)) return Value::real(a.number() + b.number());
  if (a.is(Kind::string) && b.is(Kind::string)) {
    heap.expect(a.text().size() + b.text().size());
    heap.step((a.text().size() + b.text().size()) / 64);
    bool left = a.string().markup, right = b.string().markup;
    std::string joined = right && !left ? escaped(heap, a.text()) : std::string(a.text());
    joined += left && !right ? escaped(heap, b.text()) : std::string(b.text());
    return heap.string(std::move(joined), left || right);
  }
  if (is_sequence(a) && a.kind() == b.kind()) {
    heap.expect((a.items().size() + b.items().size()) * sizeof(Value));
    std::vector<Value> joined = a.items();
    joined.insert(joined.end(), b.items().begin(), b.items().end());
    heap.step(joined.size() / 8);
    return heap.list(std::move(joined), a.kind());
  }
  require_defined(a);
  require_defined(b);
  if (a.is(Kind::string)) fail("can only concatenate str (not \"{}\") to str", type_name(b));
  if (is_sequence(a))
    fail("can only concatenate {} (not \"{}\") to {}", type_name(a), type_name(b), type_name(a));
  wrong_types("+", a, b);
}

Value subtract(const Value& a, const Value& b) {
  if (both_integral(a, b)) {
    std::int64_t difference;
    if (__builtin_sub_overflow(a.integer(), b.integer(), &difference)) too_large();
    return Value::integer(difference);
  }
  if (both_numbers(a, b)) return Value::real(a.number() - b.number());
  wrong_types("-", a, b);
}

Value repeat(Heap& heap, const Value& what, std::int64_t times) {
  std::size_t count = static_cast<std::size_t>(std::max<std::int64_t>(times, 0));
  std::size_t unit = what.is(Kind::string) ? what.text().size() : what.items().size() * sizeof(Value);
  std::size_t total;
  if (__builtin_mul_overflow(unit, count, &total)) fail("the template needs too much memory");
  heap.expect(total);
  heap.step(total / 64 + (unit > 0 ? count / 8 : 0));
  if (what.is(Kind::string)) {
    std::string text;
    text.reserve(total);
    if (unit > 0)
      for (std::size_t i = 0; i < count; ++i) text += what.text();
    return heap.string(std::move(text), what.string().markup);
  }
  std::vector<Value> items;
  if (unit > 0)
    for (std::size_t i = 0; i < count; ++i)
      items.insert(items.end(), what.items().begin(), what.items().end());
  return heap.list(std::move(items), what.kind());
}

Value multiply(Heap& heap, const Value& a, const Value& b) {
  if (both_integral(a, b)) {
    std::int64_t product;
    if (__builtin_mul_overflow(a.integer(), b.integer(), &product)) too_large();
    return Value::integer(product);
  }
  if (both_numbers(a, b)) return Value::real(a.number() * b.number());
  if ((a.is(Kind::string) || is_sequence(a)) && b.is_integral()) return repeat(heap, a, b.integer());
  if ((b.is(Kind::string) || is_sequence(b)) && a.is_integral()) return repeat(heap, b, a.integer());
  wrong_types("*", a, b);
}

Value divide(const Value& a, const Value& b) {
  if (!both_numbers(a, b)) wrong_types("/", a, b);
  if (b.number() == 0) fail("division by zero");
  return Value::real(a.number() / b.number());
}

double float_modulo(double a, double b) {
  double rest = std::fmod(a, b);
  if (rest != 0) return (b < 0) != (rest < 0) ? rest + b : rest;
  return std::copysign(0.0, b);
}

Value floor_divide(const Value& a, const Value& b) {
  if (!both_numbers(a, b)) wrong_types("//", a, b);
  if (b.number() == 0) fail("integer division or modulo by zero");
  if (!both_integral(a, b)) {
    double x = a.number(), y = b.number(), quotient = (x - float_modulo(x, y)) / y;
    if (quotient == 0) return Value::real(std::copysign(0.0, x / y));
    double whole = std::floor(quotient);
    return Value::real(quotient - whole > 0.5 ? whole + 1 : whole);
  }
  std::int64_t x = a.integer(), y = b.integer();
  if (y == -1) return negated(Value::integer(x), true);
  return Value::integer(x / y - (x % y != 0 && (x < 0) != (y < 0)));
}

Value modulo(Interpreter& in, const Value& a, const Value& b) {
  if (a.is(Kind::string)) return in.heap().string(percent_format(in, a.text(), b), a.string().markup);
  if (!both_numbers(a, b)) wrong_types("%", a, b);
  if (b.number() == 0) fail("integer division or modulo by zero");
  if (!both_integral(a, b)) return Value::real(float_modulo(a.number(), b.number()));
  std::int64_t x = a.integer(), y = b.integer();
  if (y == -1) return Value::integer(0);
  std::int64_t rest = x % y;
  return Value::integer(rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest);
}

Value power(const Value& a, const Value& b) {
  if (!both_numbers(a, b)) wrong_types("** or pow()", a, b);
  if (both_integral(a, b) && b.integer() >= 0) {
    std::int64_t result = 1, base = a.integer(), left = b.integer();
    while (left > 0) {
      if ((left & 1) && __builtin_mul_overflow(result, base, &result)) too_large();
      left >>= 1;
      if (left > 0 && __builtin_mul_overflow(base, base, &base)) too_large();
    }
    return Value::integer(result);
  }
  double x = a.number(), y = b.number();
  if (x == 0 && y < 0) fail("0.0 cannot be raised to a negative power");
  if (x < 0 && y != std::floor(y)) fail("the power of a negative number is not real");
  double result = std::pow(x, y);
  if (std::isinf(result) && !std::isinf(x) && !std::isinf(y)) fail("Numerical result out of range");
  return Value::real(result);
}

}  // namespace

Value binary(Interpreter& in, Operator op, const Value& a, const Value& b) {
  switch (op) {
    case Operator::add:
      return add(in.heap(), a, b);
    case Operator::subtract:
      return subtract(a, b);
    case Operator::multiply:
      return multiply(in.heap(), a, b);
    case Operator::divide:
      return divide(a, b);
    case Operator::floor_divide:
      return floor_divide(a, b);
    case Operator::modulo:
      return modulo(in, a, b);
    default:
      return power(a, b);
  }
}

Value negated(const Value& value, bool minus) {
  require_defined(value);
  if (value.is(Kind::real)) return Value::real(minus ? -value.number() : value.number());
  if (!value.is_integral()) fail("bad operand type for unary {}: '{}'", minus ? "-" : "+", type_name(value));
  if (minus && value.integer() == INT64_MIN) too_large();
  return Value::integer(minus ? -value.integer() : value.integer());
}

bool contains(Interpreter& in, const Value& container, const Value& item) {
  in.heap().step();
  switch (container.kind()) {
    case Kind::string:
      require_defined(item);
      if (!item.is(Kind::string))
        fail("'in <string>' requires string as left operand, not {}", type_name(item));
      return find_text(in.heap(), container.text(), item.text()) != std::string_view::npos;
    case Kind::dict:
      hash_of(in.heap(), item);
      return container.dict().find(in.heap(), item) != nullptr;
    case Kind::list:
    case Kind::tuple:
      return std::any_of(container.items().begin(), container.items().end(),
                         [&](const Value& each) { return equals(in.heap(), each, item); });
    default: {
      if (!is_iterable(container)) fail("argument of type '{}' is not iterable", type_name(container));
      Cursor cursor(in.heap(), container);
      for (Value each; cursor.next(each);)
        if (equals(in.heap(), each, item)) return true;
      return false;
    }
  }
}

std::int64_t to_index(const Value& value, const char* what) {
  require_defined(value);
  if (!value.is_integral()) fail("{} must be an integer, not '{}'", what, type_name(value));
  return value.integer();
}

namespace {

struct Bounds {
  std::int64_t start, stop, step, count;
};

// Python's slice.indices(length), and how many items that takes.
Bounds slice_bounds(std::int64_t length, const Value& start, const Value& stop, const Value& step) {
  std::int64_t stride = step.is(Kind::none) ? 1 : to_index(step, "a slice index");
  if (stride == 0) fail("slice step cannot be zero");
  stride = std::clamp<std::int64_t>(stride, -INT64_MAX, INT64_MAX);
  bool back = stride < 0;
  std::int64_t lowest = back ? -1 : 0, highest = back ? length - 1 : length;
  auto bound = [&](const Value& value, std::int64_t otherwise) {
    if (value.is(Kind::none)) return otherwise;
    std::int64_t at = to_index(value, "a slice index");
    if (at < 0) at = at < -length ? lowest : at + length;
    return std::clamp(at, lowest, highest);
  };
  std::int64_t from = bound(start, back ? highest : lowest), to = bound(stop, back ? lowest : highest);
  std::int64_t span = back ? from - to : to - from;
  std::int64_t width = back ? -stride : stride;
  return {from, to, stride, span <= 0 ? 0 : (span - 1) / width + 1};
}

Value string_slice(Heap& heap, const StringObject& string, const Bounds& bounds) {
  std::string out;
  bounds.step == 1 ? heap.copy_bytes(string.text.size()) : heap.read_bytes(string.text.size());
  heap.expect(static_cast<std::size_t>(bounds.count));
  if (bounds.step == 1) {
    std::size_t begin = byte_offset(string.text, static_cast<std::size_t>(bounds.start), string.ascii());
    std::string_view rest = string.text.substr(begin);
    out = rest.substr(0, byte_offset(rest, static_cast<std::size_t>(bounds.count), string.ascii()));
  } else if (string.ascii()) {
    for (std::int64_t i = 0; i < bounds.count; ++i)
      out += string.text[static_cast<std::size_t>(bounds.start + i * bounds.step)];
  } else {
    std::vector<std::string_view> letters;
    heap.expect(string.chars * sizeof(std::string_view));
    for (std::size_t at = 0, length; at < string.text.size(); at += length) {
      char_at(string.text, at, &length);
      letters.push_back(string.text.substr(at, length));
    }
    for (std::int64_t i = 0; i < bounds.count; ++i)
      out += letters[static_cast<std::size_t>(bounds.start + i * bounds.step)];
  }
  return heap.string(std::move(out), string.markup);
}

}  // namespace

Value slice_of(Heap& heap, const Value& value, const Value& start, const Value& stop, const Value& step) {
  require_defined(value);
  bool sequence = is_sequence(value) || value.is(Kind::string) || value.is(Kind::range);
  if (!sequence) fail("'{}' object is not subscriptable by a slice", type_name(value));
  Bounds bounds = slice_bounds(static_cast<std::int64_t>(length_of(value).value()), start, stop, step);
  if (value.is(Kind::string)) return string_slice(heap, value.string(), bounds);
  if (value.is(Kind::range)) {
    const auto& range = *static_cast<const RangeObject*>(value.object());
    auto* made = heap.make<RangeObject>();
    std::int64_t span;
    bool wide = __builtin_mul_overflow(range.step, bounds.start, &made->start) ||
                __builtin_add_overflow(range.start, made->start, &made->start) ||
                __builtin_mul_overflow(range.step, bounds.step, &made->step) ||
                __builtin_mul_overflow(range.step, bounds.stop, &span) ||
                __builtin_add_overflow(range.start, span, &made->stop);
    if (wide) too_large();
    return Value(Kind::range, made);
  }
  std::vector<Value> items;
  heap.step(static_cast<std::size_t>(bounds.count) / 8);
  heap.expect(static_cast<std::size_t>(bounds.count) * sizeof(Value));
  for (std::int64_t i = 0; i < bounds.count; ++i)
    items.push_back(value.items()[static_cast<std::size_t>(bounds.start + i * bounds.step)]);
  return heap.list(std::move(items), value.kind());
}

std::string escaped(Heap& heap, std::string_view text) {
  heap.read_bytes(text.size());
  heap.expect(text.size());
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace steelyard::jinja
