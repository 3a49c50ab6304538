// str() and repr() of values.
#include "jinja/python_text.h"
#include "jinja/value.h"

namespace steelyard::jinja {

namespace {

void append_list(Heap& heap, std::string& out, const std::vector<Value>& items, char open, char close,
                 int depth) {
  out += open;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += ", ";
    append_repr(heap, out, items[i], depth + 1);
  }
  if (open == '(' && items.size() == 1) out += ',';
  out += close;
}

void append_dict(Heap& heap, std::string& out, const DictObject& dict, int depth) {
  out += '{';
  bool first = true;
  for (const auto& [key, value] : dict.items) {
    if (!first) out += ", ";
    first = false;
    append_repr(heap, out, key, depth + 1);
    out += ": ";
    append_repr(heap, out, value, depth + 1);
  }
  out += '}';
}

void append_range(std::string& out, const RangeObject& range) {
  out += fmt::format("range({}, {}", range.start, range.stop);
  if (range.step != 1) out += fmt::format(", {}", range.step);
  out += ')';
}

void append_view(Heap& heap, std::string& out, const Value& view, int depth) {
  out += type_name(view);
  out += '(';
  append_list(heap, out, to_vector(heap, view), '[', ']', depth);
  out += ')';
}

}  // namespace

void append_repr(Heap& heap, std::string& out, const Value& value, int depth) {
  if (depth > kMaxValueDepth) fail("a value is nested too deeply to be printed");
  heap.step();
  heap.expect(out.size());
  switch (value.kind()) {
    case Kind::undefined:
      out += "Undefined";
      break;
    case Kind::none:
      out += "None";
      break;
    case Kind::boolean:
      out += value.integer() ? "True" : "False";
      break;
    case Kind::integer:
      out += std::to_string(value.integer());
      break;
    case Kind::real:
      out += repr_of(value.number());
      break;
    case Kind::string:
      heap.expect(out.size() + value.text().size());
      heap.step(value.text().size() / 16);
      if (value.string().markup) out += "Markup(";
      out += repr_of(value.text());
      if (value.string().markup) out += ')';
      break;
    case Kind::list:
      append_list(heap, out, value.items(), '[', ']', depth);
      break;
    case Kind::tuple:
      append_list(heap, out, value.items(), '(', ')', depth);
      break;
    case Kind::dict:
      append_dict(heap, out, value.dict(), depth);
      break;
    case Kind::range:
      append_range(out, *static_cast<const RangeObject*>(value.object()));
      break;
    case Kind::view:
      append_view(heap, out, value, depth);
      break;
    case Kind::space:
      out += "<Namespace ";
      append_dict(heap, out, static_cast<const SpaceObject*>(value.object())->attributes, depth + 1);
      out += '>';
      break;
    case Kind::function:
      out += fmt::format("<function {}>", static_cast<const FunctionObject*>(value.object())->name);
      break;
    default:
      out += fmt::format("<{} object>", type_name(value));
      break;
  }
}

void append_text(Heap& heap, std::string& out, const Value& value) {
  if (value.is(Kind::undefined)) return;
  if (value.is(Kind::string)) {
    heap.step(value.text().size() / 64);
    heap.expect(out.size() + value.text().size());
    out += value.text();
    return;
  }
  append_repr(heap, out, value);
}

std::string to_text(Heap& heap, const Value& value) {
  std::string out;
  append_text(heap, out, value);
  return out;
}

}  // namespace steelyard::jinja
