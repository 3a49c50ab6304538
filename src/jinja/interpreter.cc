#include "jinja/interpreter.h"

#include <algorithm>

#include "jinja/python_text.h"
#include "jinja/stack.h"

namespace steelyard::jinja {

namespace {

const std::vector<int> kNone;

}  // namespace

// Enters a scope for as long as it lives.
class Interpreter::ScopeGuard {
 public:
  ScopeGuard(Interpreter& in, Scope* parent, const std::vector<int>& undefined) : in_(in), back_(in.scope_) {
    scope_ = in.enter(parent, undefined);
  }
  ~ScopeGuard() { in_.leave(scope_, back_); }
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;

 private:
  Interpreter& in_;
  Scope *scope_, *back_;
};

// Sends output to a string of its own for as long as it lives.
class Interpreter::Capture {
 public:
  explicit Capture(Interpreter& in) : in_(in), back_(in.out_) {
    in_.out_ = &text;
    ++in_.captures_;
  }
  ~Capture() {
    in_.out_ = back_;
    --in_.captures_;
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  std::string text;

 private:
  Interpreter& in_;
  std::string* back_;
};

Interpreter::Interpreter(const Template& tree, const nlohmann::ordered_json& vars, const Limits& limits,
                         std::time_t now)
    : tree_(tree), vars_(vars), heap_(limits), output_limit_(limits.output_bytes), now_(now) {
  globals_.resize(tree.names.size());
}

std::string Interpreter::render() {
  stack_end_ = stack_end(static_cast<const char*>(__builtin_frame_address(0)));
  std::string out;
  out_ = &out;
  try {
    ScopeGuard scope(*this, nullptr, tree_.undefined_at_entry);
    execute(tree_.body);
  } catch (Failure& failure) {
    if (failure.line == 0) failure.line = line_;
    throw;
  }
  return out;
}

void Interpreter::check_stack() const {
  if (static_cast<const char*>(__builtin_frame_address(0)) < stack_end_)
    fail("the template recurses too deeply");
}

// --------------------------------------------------------------------------------------------------- scopes

Scope* Interpreter::enter(Scope* parent, const std::vector<int>& undefined) {
  Scope* made;
  if (free_scopes_.empty()) {
    heap_.charge(sizeof(Scope) + 64);
    made = &scopes_.emplace_back();
  } else {
    made = free_scopes_.back();
    free_scopes_.pop_back();
  }
  made->parent = parent;
  made->captured = false;
  made->values.clear();
  heap_.take_items(undefined.size());
  for (int id : undefined) made->values.emplace_back(id, Value());
  scope_ = made;
  return made;
}

void Interpreter::leave(Scope* scope, Scope* back) {
  if (!scope->captured) free_scopes_.push_back(scope);
  scope_ = back;
}

void Interpreter::capture(Scope* scope) {
  for (; scope != nullptr && !scope->captured; scope = scope->parent) scope->captured = true;
}

void Interpreter::set(Scope& scope, int id, const Value& value) {
  heap_.take_items(scope.values.size());
  for (auto& [known, old] : scope.values) {
    if (known != id) continue;
    old = value;
    return;
  }
  scope.values.emplace_back(id, value);
}

Value Interpreter::undefined_name(int id) {
  return heap_.undefined(fmt::format("'{}' is undefined", cut_text(tree_.names[id])));
}

Value Interpreter::lookup(int id) {
  for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    heap_.step(1 + scope->values.size() / 8);
    for (const auto& [known, value] : scope->values) {
      if (known != id) continue;
      return value.is(Kind::undefined) && value.object() == nullptr ? undefined_name(id) : value;
    }
  }
  return global(id);
}

Value Interpreter::global(int id) {
  std::optional<Value>& known = globals_[id];
  if (known) return *known;
  const std::string& name = tree_.names[id];
  auto given = vars_.find(name);
  if (given != vars_.end()) {
    known = from_json(*given);
  } else if (Function function = find_global(name)) {
    known = bound_method(function, Value(), name);
  } else {
    return undefined_name(id);
  }
  return *known;
}

// ----------------------------------------------------------------------------------------------- statements

void Interpreter::output(std::string_view text) {
  heap_.step(1 + text.size() / 64);
  if (out_->size() + text.size() > output_limit_)
    fail("the template writes more than {} bytes", output_limit_);
  if (captures_ > 0) heap_.charge(text.size());
  out_->append(text);
}

void Interpreter::output(const Value& value) {
  if (value.is(Kind::string) && !(autoescape_ && !value.string().markup)) return output(value.text());
  if (value.is(Kind::undefined)) return;
  std::string text = text_of(value);
  output(autoescape_ ? escaped(heap_, text) : text);
}

Interpreter::Flow Interpreter::execute(const Body& body) {
  for (const auto& statement : body) {
    Flow flow = execute(*statement);
    if (flow != Flow::next) return flow;
  }
  return Flow::next;
}

Interpreter::Flow Interpreter::execute(const Statement& statement) {
  using Type = Statement::Type;
  check_stack();
  heap_.step();
  line_ = statement.line;
  switch (statement.type) {
    case Type::data:
      output(statement.text);
      break;
    case Type::output:
      for (const auto& expression : statement.expressions) output(evaluate(*expression));
      break;
    case Type::for_loop:
      return run_for(statement, evaluate(*statement.expressions[0]), 0);
    case Type::if_else:
      return run_if(statement);
    case Type::set:
      assign(*statement.target, evaluate(*statement.expressions[0]));
      break;
    case Type::set_block:
      return run_set_block(statement);
    case Type::macro:
      set(*scope_, statement.name_id, make_macro(statement, false));
      break;
    case Type::call_block:
      run_call_block(statement);
      break;
    case Type::with:
    case Type::filter_block:
    case Type::block:
    case Type::generation:
    case Type::autoescape:
      return run_inner(statement);
    case Type::break_loop:
      return Flow::break_loop;
    case Type::continue_loop:
      return Flow::continue_loop;
    case Type::unsupported:
      fail("'{}' needs other templates, and there are none", statement.name);
  }
  return Flow::next;
}

Interpreter::Flow Interpreter::run_if(const Statement& statement) {
  for (std::size_t i = 0; i < statement.branches.size(); ++i)
    if (truth(evaluate(*statement.expressions[i]))) return execute(statement.branches[i]);
  return execute(statement.other);
}

// Tags with a body in a scope of its own.
Interpreter::Flow Interpreter::run_inner(const Statement& statement) {
  using Type = Statement::Type;
  std::vector<Value> values;
  if (statement.type == Type::with)
    for (const auto& expression : statement.expressions) values.push_back(evaluate(*expression));
  bool escape = autoescape_;
  if (statement.type == Type::autoescape) escape = truth(evaluate(*statement.expressions[0]));
  ScopeGuard scope(*this, scope_, statement.undefined_at_entry);
  for (std::size_t i = 0; i < values.size(); ++i) assign(*statement.targets[i], values[i]);
  if (statement.type == Type::filter_block) {
    Value text;
    {
      Capture capture(*this);
      Flow flow = execute(statement.body);
      if (flow != Flow::next) return flow;
      text = heap_.string(std::move(capture.text), autoescape_);
    }
    output(evaluate_filter(*statement.expressions[0], &text));
    return Flow::next;
  }
  std::swap(autoescape_, escape);
  Flow flow = execute(statement.body);
  std::swap(autoescape_, escape);
  return flow;
}

Interpreter::Flow Interpreter::run_set_block(const Statement& statement) {
  Value text;
  {
    ScopeGuard scope(*this, scope_, statement.undefined_at_entry);
    Capture capture(*this);
    Flow flow = execute(statement.body);
    if (flow != Flow::next) return flow;
    text = heap_.string(std::move(capture.text), autoescape_);
    if (statement.expressions[0]) text = evaluate_filter(*statement.expressions[0], &text);
  }
  assign(*statement.target, text);
  return Flow::next;
}

void Interpreter::assign(const Expression& target, const Value& value) {
  if (target.type == Expression::Type::name) return set(*scope_, target.name_id, value);
  if (target.type == Expression::Type::target) return assign_attribute(target, value);
  std::vector<Value> items = to_vector(heap_, value);
  if (items.size() < target.parts.size())
    fail("not enough values to unpack (expected {}, got {})", target.parts.size(), items.size());
  if (items.size() > target.parts.size())
    fail("too many values to unpack (expected {})", target.parts.size());
  for (std::size_t i = 0; i < items.size(); ++i) assign(*target.parts[i], items[i]);
}

void Interpreter::assign_attribute(const Expression& target, const Value& value) {
  Value owner = lookup(target.name_id);
  if (!owner.is(Kind::space)) fail("cannot assign attribute on non-namespace object");
  static_cast<SpaceObject*>(owner.object())->attributes.set(heap_, target.constant, value);
}

// ---------------------------------------------------------------------------------------------------- loops

Interpreter::Flow Interpreter::run_for(const Statement& statement, const Value& items, int depth) {
  auto* loop = heap_.make<LoopObject>(heap_, items);
  loop->statement = &statement;
  loop->around = scope_;
  loop->depth0 = depth;
  if (statement.recursive || statement.expressions[1]) capture(scope_);
  bool any = false;  // an iteration came to its end: one left by break or continue doesn't keep `else` away
  for (Value item; next_item(*loop, item);) {
    ScopeGuard scope(*this, loop->around, statement.undefined_at_entry);
    set(*scope_, tree_.loop_id, Value(Kind::loop, loop));
    assign(*statement.target, item);
    Flow flow = execute(statement.body);
    if (flow == Flow::break_loop) break;
    any |= flow == Flow::next;
  }
  if (any) return Flow::next;
  ScopeGuard scope(*this, scope_, kNone);
  return execute(statement.other);
}

bool Interpreter::pull(LoopObject& loop, Value& out) {
  const Expression* wanted = loop.statement->expressions[1].get();
  while (loop.cursor.next(out)) {
    if (wanted == nullptr) return true;
    ScopeGuard scope(*this, loop.around, kNone);
    assign(*loop.statement->target, out);
    if (truth(evaluate(*wanted))) return true;
  }
  return false;
}

bool Interpreter::next_item(LoopObject& loop, Value& out) {
  if (loop.ahead_at < loop.ahead.size()) {
    out = loop.ahead[loop.ahead_at++];
    if (loop.ahead_at == loop.ahead.size()) {
      loop.ahead.clear();
      loop.ahead_at = 0;
    }
  } else if (!pull(loop, out)) {
    return false;
  }
  ++loop.index0;
  loop.before = loop.current;
  loop.current = out;
  return true;
}

const Value* Interpreter::peek(LoopObject& loop) {
  if (loop.ahead_at == loop.ahead.size()) {
    Value item;
    if (!pull(loop, item)) return nullptr;
    loop.ahead.push_back(item);
  }
  return &loop.ahead[loop.ahead_at];
}

std::int64_t Interpreter::loop_length(LoopObject& loop) {
  std::size_t left = loop.ahead.size() - loop.ahead_at;
  auto remaining = loop.statement->expressions[1] ? std::nullopt : loop.cursor.remaining();
  if (remaining) return loop.index0 + 1 + static_cast<std::int64_t>(left + *remaining);
  heap_.step();
  for (Value item; pull(loop, item);) {
    heap_.charge(sizeof(Value));
    loop.ahead.push_back(item);
  }
  return loop.index0 + 1 + static_cast<std::int64_t>(loop.ahead.size() - loop.ahead_at);
}

Value cycle_of_loop(Interpreter&, const Value& self, Arguments& arguments) {
  if (arguments.positional.empty()) fail("no items for cycling given");
  auto& loop = *static_cast<LoopObject*>(self.object());
  std::size_t index = static_cast<std::size_t>(std::max<std::int64_t>(loop.index0, 0));
  return arguments.positional[index % arguments.positional.size()];
}

Value loop_changed(Interpreter& in, const Value& self, Arguments& arguments) {
  auto& loop = *static_cast<LoopObject*>(self.object());
  const auto& values = arguments.positional;
  in.heap().step(values.size());
  bool same = loop.changed && loop.changed->size() == values.size();
  for (std::size_t i = 0; same && i < values.size(); ++i)
    same = equals(in.heap(), (*loop.changed)[i], values[i]);
  if (!same) loop.changed = values;
  return Value::boolean(!same);
}

Value Interpreter::loop_attribute(const Value& value, std::string_view name) {
  auto& loop = *static_cast<LoopObject*>(value.object());
  if (name == "index") return Value::integer(loop.index0 + 1);
  if (name == "index0") return Value::integer(loop.index0);
  if (name == "first") return Value::boolean(loop.index0 == 0);
  if (name == "last") return Value::boolean(peek(loop) == nullptr);
  if (name == "length") return Value::integer(loop_length(loop));
  if (name == "revindex") return Value::integer(loop_length(loop) - loop.index0);
  if (name == "revindex0") return Value::integer(loop_length(loop) - loop.index0 - 1);
  if (name == "depth") return Value::integer(loop.depth0 + 1);
  if (name == "depth0") return Value::integer(loop.depth0);
  if (name == "previtem")
    return loop.index0 <= 0 ? heap_.undefined("there is no previous item") : loop.before;
  if (name == "nextitem") {
    const Value* following = peek(loop);
    return following ? *following : heap_.undefined("there is no next item");
  }
  if (name == "cycle") return bound_method(cycle_of_loop, value, name);
  if (name == "changed") return bound_method(loop_changed, value, name);
  return heap_.undefined(fmt::format("'LoopContext' object has no attribute {}", repr_cut(name)));
}

Value Interpreter::call_loop(LoopObject& loop, Arguments& arguments) {
  if (!loop.statement->recursive) fail("The loop must have the 'recursive' marker to be called recursively.");
  if (arguments.positional.size() != 1 || !arguments.named.empty()) fail("loop() takes one iterable");
  Scope* back = scope_;
  scope_ = loop.around;
  Capture capture(*this);
  try {
    run_for(*loop.statement, arguments.positional[0], loop.depth0 + 1);
  } catch (...) {
    scope_ = back;
    throw;
  }
  scope_ = back;
  return heap_.string(std::move(capture.text), autoescape_);
}

// --------------------------------------------------------------------------------------------------- macros

Value Interpreter::make_macro(const Statement& statement, bool is_caller) {
  auto* macro = heap_.make<MacroObject>();
  macro->signature = statement.signature.get();
  macro->body = &statement.body;
  macro->undefined_at_entry = &statement.undefined_at_entry;
  macro->scope = scope_;
  macro->name = is_caller ? std::string_view("caller") : std::string_view(statement.name);
  macro->is_caller = is_caller;
  capture(scope_);
  return Value(Kind::macro, macro);
}

void Interpreter::run_call_block(const Statement& statement) {
  Value caller = make_macro(statement, true);
  output(evaluate_call(*statement.expressions[0], &caller));
}

Value Interpreter::call_macro(const MacroObject& macro, Arguments& arguments) {
  check_stack();
  ScopeGuard scope(*this, macro.scope, *macro.undefined_at_entry);
  bind_macro(macro, arguments);
  Capture capture(*this);
  execute(*macro.body);
  return heap_.string(std::move(capture.text), autoescape_);
}

// Gives the parameters of the macro whose scope was just entered their values.
void Interpreter::bind_macro(const MacroObject& macro, Arguments& arguments) {
  const Signature& signature = *macro.signature;
  std::size_t count = signature.names.size(), given = std::min(count, arguments.positional.size());
  auto take_named = [&](std::string_view name) -> std::optional<Value> {
    heap_.step(arguments.named.size());
    auto found = std::find_if(arguments.named.begin(), arguments.named.end(),
                              [&](const auto& argument) { return argument.first == name; });
    if (found == arguments.named.end()) return std::nullopt;
    Value value = found->second;
    arguments.named.erase(found);
    return value;
  };
  bool found_caller = given == count && std::find(signature.names.begin(), signature.names.end(), "caller") !=
                                            signature.names.end();
  for (std::size_t i = 0; i < count; ++i) {
    std::optional<Value> value;
    if (i < given) {
      value = arguments.positional[i];
    } else {
      value = take_named(signature.names[i]);
      found_caller |= signature.names[i] == "caller";
    }
    std::size_t first_default = count - signature.defaults.size();
    if (!value && i >= first_default) value = evaluate(*signature.defaults[i - first_default]);
    if (!value) value = heap_.undefined(fmt::format("parameter '{}' was not provided", signature.names[i]));
    set(*scope_, signature.name_ids[i], *value);
  }
  if (signature.uses_caller && !found_caller) {
    auto caller = take_named("caller");
    set(*scope_, tree_.caller_id,
        caller && !caller->is(Kind::none) ? *caller : heap_.undefined("No caller defined"));
  }
  if (signature.uses_kwargs) {
    DictObject* rest = heap_.new_dict();
    for (const auto& [name, value] : arguments.named)
      rest->set(heap_, heap_.string(std::string(name)), value);
    set(*scope_, tree_.kwargs_id, Value(Kind::dict, rest));
  } else if (!arguments.named.empty()) {
    fail("macro {} takes no keyword argument {}", repr_cut(macro.name), repr_cut(arguments.named[0].first));
  }
  if (signature.uses_varargs) {
    std::vector<Value> rest(arguments.positional.begin() + static_cast<std::ptrdiff_t>(given),
                            arguments.positional.end());
    set(*scope_, tree_.varargs_id, heap_.list(std::move(rest), Kind::tuple));
  } else if (arguments.positional.size() > count) {
    fail("macro {} takes not more than {} argument(s)", repr_cut(macro.name), count);
  }
}

}  // namespace steelyard::jinja
