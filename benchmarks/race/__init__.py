"""A race: contenders in processes of their own, in turn, and what makes a result void."""
