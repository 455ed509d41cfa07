"""Dataset cards: where frames and questions come from, what they hold, under which licences."""
