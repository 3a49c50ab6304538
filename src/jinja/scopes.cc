#include "jinja/scopes.h"

#include <map>
#include <set>

namespace steelyard::jinja {

namespace {

// How a name gets its first value in a scope: from the scope around it, from the template's variables (either
// way by looking outward), or not at all.
enum class Source { outward, undefined };

struct Symbols {
  const Symbols* parent = nullptr;
  std::map<int, Source> sources;
  std::set<int> stores;
  std::size_t* budget = nullptr;  // names that may still be copied; the same for the whole template

  bool known(int id) const {
    for (const Symbols* scope = this; scope != nullptr; scope = scope->parent)
      if (scope->sources.contains(id)) return true;
    return false;
  }
  void load(int id) {
    if (!known(id)) sources[id] = Source::outward;
  }
  void store(int id) {
    stores.insert(id);
    if (!sources.contains(id))
      sources[id] = parent && parent->known(id) ? Source::outward : Source::undefined;
  }
  void declare(int id) {
    stores.insert(id);
    sources[id] = Source::outward;
  }
};

void load_all(Symbols& symbols, const Expression* expression) {
  if (expression == nullptr) return;
  if (expression->name_id >= 0) symbols.load(expression->name_id);
  for (const auto& part : expression->parts) load_all(symbols, part.get());
  if (!expression->arguments) return;
  for (const auto& argument : expression->arguments->positional) load_all(symbols, argument.get());
  for (const auto& argument : expression->arguments->named) load_all(symbols, argument.second.get());
  load_all(symbols, expression->arguments->list.get());
  load_all(symbols, expression->arguments->dict.get());
}

void store_all(Symbols& symbols, const Expression* target, bool parameter = false) {
  if (target->type == Expression::Type::target) {
    symbols.load(target->name_id);
  } else if (target->type == Expression::Type::name) {
    if (parameter) {
      symbols.declare(target->name_id);
    } else {
      symbols.store(target->name_id);
    }
  }
  for (const auto& part : target->parts) store_all(symbols, part.get(), parameter);
}

void visit(Symbols& symbols, const Body& body);

// Names set in only some branches are looked up outward when the branch wasn't taken.
void visit_branches(Symbols& symbols, const Statement& statement) {
  std::vector<Symbols> branches;
  load_all(symbols, statement.expressions[0].get());
  std::size_t copied = (statement.branches.size() + 1) * (symbols.sources.size() + symbols.stores.size() + 1);
  if (copied > *symbols.budget) throw Failure{"the template is too large", statement.line};
  *symbols.budget -= copied;
  for (std::size_t i = 0; i < statement.branches.size(); ++i) {
    branches.push_back(symbols);
    if (i > 0) load_all(branches.back(), statement.expressions[i].get());
    visit(branches.back(), statement.branches[i]);
  }
  branches.push_back(symbols);
  visit(branches.back(), statement.other);
  std::set<int> fresh;
  for (const Symbols& branch : branches)
    for (int id : branch.stores)
      if (!symbols.stores.contains(id)) fresh.insert(id);
  for (const Symbols& branch : branches) {
    for (auto [id, source] : branch.sources) symbols.sources[id] = source;
    symbols.stores.insert(branch.stores.begin(), branch.stores.end());
  }
  for (int id : fresh) symbols.sources[id] = Source::outward;
}

// What a statement reads and sets in the scope it stands in; scopes inside are not entered.
void visit_statement(Symbols& symbols, const Statement& statement) {
  using Type = Statement::Type;
  switch (statement.type) {
    case Type::output:
    case Type::autoescape:
    case Type::filter_block:
    case Type::call_block:
    case Type::with:
      for (const auto& expression : statement.expressions) load_all(symbols, expression.get());
      break;
    case Type::for_loop:
      load_all(symbols, statement.expressions[0].get());
      break;
    case Type::if_else:
      visit_branches(symbols, statement);
      break;
    case Type::set:
      load_all(symbols, statement.expressions[0].get());
      store_all(symbols, statement.target.get());
      break;
    case Type::set_block:
      store_all(symbols, statement.target.get());
      break;
    case Type::macro:
      symbols.store(statement.name_id);
      break;
    default:
      break;
  }
}

void visit(Symbols& symbols, const Body& body) {
  for (const auto& statement : body) visit_statement(symbols, *statement);
}

std::vector<int> undefined_names(const Symbols& symbols) {
  std::vector<int> ids;
  for (auto [id, source] : symbols.sources)
    if (source == Source::undefined) ids.push_back(id);
  return ids;
}

class Walk {
 public:
  explicit Walk(const Template& tree) : tree_(tree) {}

  void scopes_in(const Symbols& around, Body& body) {
    for (auto& statement : body) scopes_of(around, *statement);
  }

 private:
  void enter(Symbols& symbols, Statement& statement) {
    visit(symbols, statement.body);
    statement.undefined_at_entry = undefined_names(symbols);
    scopes_in(symbols, statement.body);
  }

  void declare_signature(Symbols& symbols, const Signature& signature) {
    for (int id : signature.name_ids) symbols.declare(id);
    for (const auto& value : signature.defaults) load_all(symbols, value.get());
    if (signature.uses_caller) symbols.declare(tree_.caller_id);
    if (signature.uses_varargs) symbols.declare(tree_.varargs_id);
    if (signature.uses_kwargs) symbols.declare(tree_.kwargs_id);
  }

  void scopes_of(const Symbols& around, Statement& statement) {
    using Type = Statement::Type;
    Symbols symbols;
    symbols.parent = &around;
    symbols.budget = around.budget;
    switch (statement.type) {
      case Type::for_loop: {
        symbols.declare(tree_.loop_id);
        store_all(symbols, statement.target.get(), true);
        enter(symbols, statement);
        Symbols otherwise;
        otherwise.parent = &around;
        otherwise.budget = around.budget;
        visit(otherwise, statement.other);
        scopes_in(otherwise, statement.other);
        break;
      }
      case Type::if_else:
        for (auto& branch : statement.branches) scopes_in(around, branch);
        scopes_in(around, statement.other);
        break;
      case Type::macro:
      case Type::call_block:
        declare_signature(symbols, *statement.signature);
        enter(symbols, statement);
        break;
      case Type::with:
        for (const auto& target : statement.targets) store_all(symbols, target.get(), true);
        enter(symbols, statement);
        break;
      case Type::set_block:
      case Type::filter_block:
      case Type::block:
      case Type::generation:
      case Type::autoescape:
        enter(symbols, statement);
        break;
      default:
        break;
    }
  }

  const Template& tree_;
};

}  // namespace

void find_undefined_at_entry(Template& tree) {
  std::size_t budget = 20'000'000;
  Symbols root;
  root.budget = &budget;
  visit(root, tree.body);
  tree.undefined_at_entry = undefined_names(root);
  Walk(tree).scopes_in(root, tree.body);
}

}  // namespace steelyard::jinja
