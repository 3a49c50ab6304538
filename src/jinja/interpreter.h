// Renders a compiled template. One Interpreter per rendering; not shared between threads.
#pragma once

#include <array>
#include <ctime>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "jinja/ast.h"
#include "jinja/tables.h"
#include "jinja/value.h"

namespace steelyard::jinja {

// Variables of one scope, innermost first through `parent`.
struct Scope {
  Scope* parent = nullptr;
  bool captured = false;  // a macro or loop object may come back to it
  std::vector<std::pair<int, Value>> values;
};

struct MacroObject : Object {
  const Signature* signature;
  const Body* body;
  const std::vector<int>* undefined_at_entry;
  Scope* scope;
  std::string_view name;
  bool is_caller = false;
};

// The items of a for loop, pulled one at a time, and what `loop` says about them.
struct LoopObject : Object {
  LoopObject(Heap& heap, const Value& items) : cursor(heap, items) {}
  Cursor cursor;
  const Statement* statement = nullptr;
  Scope* around = nullptr;
  std::vector<Value> ahead;  // pulled before their turn
  std::size_t ahead_at = 0;
  std::int64_t index0 = -1;
  int depth0 = 0;
  Value before, current;
  std::optional<std::vector<Value>> changed;
};

class Interpreter {
 public:
  // `tree` and `vars` outlive the interpreter. `vars` is an object.
  Interpreter(const Template& tree, const nlohmann::ordered_json& vars, const Limits& limits,
              std::time_t now);
  // Throws Failure with the line filled in.
  std::string render();

  Heap& heap() { return heap_; }
  std::time_t now() const { return now_; }

  Value call(const Value& callee, Arguments& arguments);
  Value attribute(const Value& owner, std::string_view name);  // owner.name
  Value item(const Value& owner, const Value& key);            // owner[key]
  Value filter(std::string_view name, const Value& value, Arguments& arguments);
  bool test(std::string_view name, const Value& value, Arguments& arguments);
  std::string text_of(const Value& value) { return to_text(heap_, value); }
  Value from_json(const nlohmann::ordered_json& json, int depth = 0);
  bool autoescape() const { return autoescape_; }

 private:
  enum class Flow : std::uint8_t { next, break_loop, continue_loop };
  class ScopeGuard;
  class Capture;

  // Statements (interpreter.cc).
  Flow execute(const Body& body);
  Flow execute(const Statement& statement);
  void output(const Value& value);
  void output(std::string_view text);
  Flow run_if(const Statement& statement);
  Flow run_inner(const Statement& statement);
  Flow run_set_block(const Statement& statement);
  void run_call_block(const Statement& statement);
  Flow run_for(const Statement& statement, const Value& items, int depth);
  void assign(const Expression& target, const Value& value);
  void assign_attribute(const Expression& target, const Value& value);
  bool pull(LoopObject& loop, Value& out);
  bool next_item(LoopObject& loop, Value& out);
  const Value* peek(LoopObject& loop);
  std::int64_t loop_length(LoopObject& loop);
  Value loop_attribute(const Value& value, std::string_view name);
  Value call_loop(LoopObject& loop, Arguments& arguments);
  Value make_macro(const Statement& statement, bool is_caller);
  Value call_macro(const MacroObject& macro, Arguments& arguments);
  void bind_macro(const MacroObject& macro, Arguments& arguments);
  Scope* enter(Scope* parent, const std::vector<int>& undefined);
  void leave(Scope* scope, Scope* back);
  void capture(Scope* scope);
  void set(Scope& scope, int id, const Value& value);
  Value lookup(int id);
  Value global(int id);
  Value undefined_name(int id);
  void check_stack() const;

  // Expressions (expressions.cc).
  Value evaluate(const Expression& expression);
  Value evaluate_sequence(const Expression& expression);
  Value evaluate_dict(const Expression& expression);
  Value evaluate_slice(const Expression& expression);
  Value evaluate_call(const Expression& expression, const Value* caller = nullptr);
  Value evaluate_filter(const Expression& expression, const Value* input);
  Value evaluate_compare(const Expression& expression);
  Value evaluate_concat(const Expression& expression);
  Value evaluate_condition(const Expression& expression);
  bool evaluate_test(const Expression& expression);
  void fill(const CallArguments& given, Arguments& arguments);
  Value bound_method(Function function, const Value& owner, std::string_view name);

  friend Value cycle_of_loop(Interpreter&, const Value&, Arguments&);
  friend Value loop_changed(Interpreter&, const Value&, Arguments&);

  const Template& tree_;
  const nlohmann::ordered_json& vars_;
  Heap heap_;
  std::size_t output_limit_;
  std::time_t now_;
  std::string* out_ = nullptr;
  std::size_t captures_ = 0;
  Scope* scope_ = nullptr;
  std::deque<Scope> scopes_;
  std::vector<Scope*> free_scopes_;
  std::vector<std::optional<Value>> globals_;  // by name id: the template's variables and global functions
  int line_ = 1;
  bool autoescape_ = false;
  const char* stack_end_ = nullptr;  // as far down as recursion may go
};

// operators.cc
Value binary(Interpreter& in, Operator op, const Value& a, const Value& b);
Value negated(const Value& value, bool minus);
bool contains(Interpreter& in, const Value& container, const Value& item);
Value slice_of(Heap& heap, const Value& value, const Value& start, const Value& stop, const Value& step);
std::string escaped(Heap& heap, std::string_view text);  // & < > ' " for HTML
std::int64_t to_index(const Value& value, const char* what);

// formatting.cc: "…" % values, "…".format(…)
std::string percent_format(Interpreter& in, std::string_view format, const Value& values);
std::string brace_format(Interpreter& in, std::string_view format, const Arguments& arguments);

// json_text.cc
struct JsonStyle {
  std::optional<std::string> indent;
  std::string item_separator = ", ", key_separator = ": ";
  bool sort_keys = false, ascii = false;
};
std::string to_json(Heap& heap, const Value& value, const JsonStyle& style);

// In the tables of what a template may name; null when there is no such thing.
Function find_filter(std::string_view name);
Function find_method(const Value& owner, std::string_view name);
bool is_unsafe_method(const Value& owner, std::string_view name);
Function find_global(std::string_view name);
Test find_test(std::string_view name);

// Arguments of a function by position or name. A parameter that wasn't given is null.
class Parameters {
 public:
  // Throws Failure for too many arguments or unknown names.
  Parameters(const char* function, const Arguments& arguments, std::initializer_list<std::string_view> names);
  const Value* operator[](std::size_t i) const { return values_[i]; }
  const Value& require(std::size_t i) const;
  bool flag(std::size_t i, bool otherwise) const { return values_[i] ? truth(*values_[i]) : otherwise; }
  std::int64_t integer(std::size_t i, std::int64_t otherwise) const;

 private:
  const char* function_;
  std::array<const Value*, 8> values_{};
};

}  // namespace steelyard::jinja
